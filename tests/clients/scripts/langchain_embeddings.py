"""LangChain's OpenAIEmbeddings: as texts, and as it does by itself, as token ids. Argument: URL.

Its tokens are those of tiktoken, whose files come from the network: here each byte is one.
"""

import asyncio
import json
import sys
from typing import Any

import tiktoken
from langchain_openai import OpenAIEmbeddings

TEXTS = ["What is deep learning?", "It is a way of learning.", "x"]
BYTES = tiktoken.Encoding(
    "bytes", pat_str=".", mergeable_ranks={bytes([one]): one for one in range(256)}, special_tokens={}
)
tiktoken.encoding_for_model = tiktoken.get_encoding = lambda name: BYTES


def main(url: str) -> dict[str, Any]:
    given: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": "-", "model": "tgi"}
    texts, ids = OpenAIEmbeddings(**given, check_embedding_ctx_length=False), OpenAIEmbeddings(**given)
    return {
        "texts": texts.embed_documents(TEXTS),
        "query": texts.embed_query(TEXTS[0]),
        "async": asyncio.run(texts.aembed_documents(TEXTS)),
        "short": OpenAIEmbeddings(**given, check_embedding_ctx_length=False, dimensions=8).embed_query(TEXTS[0]),
        "ids": ids.embed_documents(TEXTS),
    }


print(json.dumps(main(sys.argv[1])))
