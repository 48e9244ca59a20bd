"""LangChain's classes over huggingface_hub. Argument: URL."""

import asyncio
import json
import sys
from typing import Any

from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint

QUESTION = "Count to 10"


def main(url: str) -> dict[str, Any]:
    sampled = HuggingFaceEndpoint(endpoint_url=url, max_new_tokens=8, seed=7)
    full = HuggingFaceEndpoint(
        endpoint_url=url, max_new_tokens=8, top_k=10, top_p=0.95, typical_p=0.95, stop_sequences=["."]
    )
    chat = ChatHuggingFace(llm=sampled, max_tokens=8, temperature=1e-4, model_id="tgi")
    return {
        "sampled": [sampled.invoke("Hello, ") for _ in range(2)],
        "full": full.invoke("Hello, "),
        "stream": list(sampled.stream("Hello, ")),
        "async": asyncio.run(sampled.ainvoke("Hello, ")),
        "chat": chat.invoke(QUESTION).content,
        "chat_stream": [chunk.content for chunk in chat.stream(QUESTION)],
    }


print(json.dumps(main(sys.argv[1])))
