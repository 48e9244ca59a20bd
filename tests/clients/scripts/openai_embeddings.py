"""Embeddings by OpenAI's Python library, which asks for base64 unless told otherwise. Argument: URL."""

import asyncio
import json
import sys
from typing import Any

import openai

TEXTS = ["What is deep learning?", "It is a way of learning.", "x"]


async def together(url: str) -> list[list[float]]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="-") as client:
        answers = await asyncio.gather(*(client.embeddings.create(model="tgi", input=text) for text in TEXTS))
        return [answer.data[0].embedding for answer in answers]


def main(url: str) -> dict[str, Any]:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)
    create = client.embeddings.create
    try:
        create(model="tgi", input="a", dimensions=1_000_000)
        refused = None
    except openai.APIStatusError as error:
        refused = {"status": error.status_code, "param": error.param, "text": error.message}
    return {
        "texts": create(model="tgi", input=TEXTS).model_dump(),
        "floats": create(model="tgi", input=TEXTS, encoding_format="float").model_dump(),
        "ids": create(model="tgi", input=[[5, 6, 7], [8]]).model_dump(),
        "short": create(model="tgi", input=TEXTS[0], dimensions=8, user="me").model_dump(),
        "async": asyncio.run(together(url)),
        "many": len(create(model="tgi", input=["a b"] * 300).data),
        "model": client.models.retrieve("tgi").id,
        "refused": refused,
    }


print(json.dumps(main(sys.argv[1])))
