"""Embeddings by litellm. Argument: URL."""

import json
import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the network
import litellm

TEXTS = ["What is deep learning?", "It is a way of learning.", "x"]


def main(url: str) -> dict[str, Any]:
    answers = {}
    for provider in ("openai", "hosted_vllm"):
        answer = litellm.embedding(model=f"{provider}/tgi", input=TEXTS, api_base=f"{url}/v1", api_key="-")
        answers[provider] = {"vectors": [one["embedding"] for one in answer.data], "usage": answer.usage.model_dump()}
    return answers


print(json.dumps(main(sys.argv[1])))
