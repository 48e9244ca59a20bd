"""`/v1/embeddings`: one vector for each text.

Owns the way from texts to OpenAI's answer. Does not own limits, tokenising nor pooling (`serving.embeddings`). A
request has one permit, however many texts it brings: few of them are in the engine together.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import AsyncGenerator
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tgi.api.openai.embedding_types import EmbeddingList, EmbeddingObject, EmbeddingRequest, EmbeddingUsage
from tgi.api.openapi.document import documented
from tgi.api.server.access import Routes
from tgi.api.server.call import Call
from tgi.serving.embeddings import Embedding
from tgi.serving.types import Timings

routes = Routes()
NUMBERS_AT_ONCE = 16_384
"""Of vectors that are written in one go: some milliseconds of a thread."""
encode = msgspec.json.Encoder().encode


@routes.post("/v1/embeddings")
@documented("embeddings", EmbeddingRequest, EmbeddingList)
async def embeddings(request: Request) -> Response:
    """The vectors of one or several texts, each of length 1."""
    async with Call(request, openai=True) as call:
        body = await call.read(EmbeddingRequest)
        body.check_model(call.api.known_names, call.ignored)
        work = call.prepare_embeddings(
            body.inputs, single=body.single, dimensions=body.dimensions, add_special_tokens=body.add_special_tokens
        )
        requests = await call.wait(work)
        call.characters = sum(len(given) for given in body.inputs if isinstance(given, str))
        validated = time.monotonic()
        found = await call.wait(call.api.service.embedder.embed(requests))
        headers = _finish(call, body, found, validated)
        return call.answer(await _written(call, body, found), headers)


def _finish(call: Call, body: EmbeddingRequest, found: list[Embedding], validated: float) -> dict[str, str]:
    """Note what it took; gives the headers."""
    now, began = time.monotonic(), min(one.scheduled for one in found)
    timings = Timings(
        total=now - call.started,
        validation=validated - call.started - call.waited,
        queue=call.waited + max(began - validated, 0.0),
        inference=now - began,
    )
    tokens = sum(one.prompt_tokens for one in found)
    facts: dict[str, str | int] = {
        "inputs": len(found),
        "input_tokens": tokens,
        "cached_tokens": sum(one.cached_tokens for one in found),
        "dimensions": _width(found),
        "pooling": call.api.service.embedder.pooling.kind,
        "encoding_format": body.encoding_format,
        "total_time": f"{timings.total:.6f}s",
        "validation_time": f"{timings.validation:.6f}s",
        "queue_time": f"{timings.queue:.6f}s",
        "inference_time": f"{timings.inference:.6f}s",
    }
    call.succeeded(timings, facts)
    return call.embedding_headers(tokens, timings)


async def _written(call: Call, body: EmbeddingRequest, found: list[Embedding]) -> bytes | AsyncGenerator[bytes, None]:
    """The answer; a large one in pieces, each made in a thread when its turn comes."""
    tokens = sum(one.prompt_tokens for one in found)
    empty = EmbeddingList("list", [], call.api.served_model_id, EmbeddingUsage(tokens, tokens))
    before, after = encode(empty).split(b"[]", 1)
    count = max(NUMBERS_AT_ONCE // _width(found), 1)
    if len(found) <= count:
        return b"".join((before, b"[", _items(body, found, slice(0, count)), b"]", after))
    return _pieces(call, body, found, count, (before + b"[", b"]" + after))


async def _pieces(
    call: Call, body: EmbeddingRequest, found: list[Embedding], count: int, around: tuple[bytes, bytes]
) -> AsyncGenerator[bytes, None]:
    for first in range(0, len(found), count):
        items = await call.api.service.in_turn(partial(_items, body, found, slice(first, first + count)))
        yield (b"," if first else around[0]) + items
    yield around[1]


def _items(body: EmbeddingRequest, found: list[Embedding], some: slice) -> bytes:
    """Some of the vectors, without the brackets of an array."""
    floats = body.encoding_format == "float"
    return encode(
        [
            EmbeddingObject("embedding", some.start + number, one.embedding if floats else b64encode(one.data).decode())
            for number, one in enumerate(found[some])
        ]
    )[1:-1]


def _width(found: list[Embedding]) -> int:
    """Numbers of a vector."""
    return max(len(found[0].data) // 4, 1)
