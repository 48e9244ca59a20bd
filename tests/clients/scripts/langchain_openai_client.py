"""LangChain's OpenAI classes. Argument: URL."""

import asyncio
import json
import sys
from typing import Any

from langchain_openai import ChatOpenAI, OpenAI

QUESTION = "Count to 10"


def main(url: str) -> dict[str, Any]:
    chat = ChatOpenAI(base_url=f"{url}/v1", api_key="-", model="tgi", temperature=0, max_completion_tokens=8)
    completion = OpenAI(base_url=f"{url}/v1", api_key="-", model="tgi", temperature=0, max_tokens=8)
    defaults = OpenAI(base_url=f"{url}/v1", api_key="-", max_tokens=8)
    answer = chat.invoke([("system", "You are kind."), ("user", QUESTION)])
    return {
        "chat": {"text": answer.content, "usage": answer.usage_metadata, "metadata": answer.response_metadata},
        "stream": [chunk.content for chunk in chat.stream([("system", "You are kind."), ("user", QUESTION)])],
        "batch": [one.content for one in chat.batch([QUESTION, QUESTION])],
        "async": asyncio.run(chat.ainvoke(QUESTION)).content,
        "logprobs": chat.bind(logprobs=True, top_logprobs=2).invoke(QUESTION).response_metadata["logprobs"],
        "stop": chat.bind(stop=["1", " "]).invoke(QUESTION).content,
        "completion": completion.invoke("Hello, "),
        "completion_stream": list(completion.stream("Hello, ")),
        "completion_batch": [one[0].text for one in completion.generate(["Hello, ", "One, two, "]).generations],
        "completion_defaults": defaults.invoke("Hello, "),
    }


print(json.dumps(main(sys.argv[1])))
