"""Compressed bodies: gzip is read, within the limit of what it holds; others are refused by name."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.api.fake import FakeEngine, build_app

BODIES: list[tuple[str, Any]] = [
    ("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 2}}),
    ("/v1/completions", {"prompt": "x", "max_tokens": 2}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
    ("/tokenize", {"inputs": "x"}),
]
PLAIN = json.dumps(BODIES[0][1]).encode()


async def post(client: httpx.AsyncClient, content: Any, encoding: str, path: str = "/generate") -> httpx.Response:
    headers = {"content-type": "application/json", "content-encoding": encoding}
    return await client.post(path, content=content, headers=headers)


@pytest.mark.parametrize(("path", "body"), BODIES)
@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "identity, gzip"])
async def test_gzip(client: httpx.AsyncClient, path: str, body: Any, encoding: str) -> None:
    answer = await post(client, gzip.compress(json.dumps(body).encode()), encoding, path)
    assert answer.status_code == 200, answer.text
    if path != "/v1/chat/completions":
        plain = await client.post(path, json=body)
        assert answer.json() == plain.json() or answer.json()["choices"] == plain.json()["choices"]


@pytest.mark.parametrize("encoding", ["", "identity", " identity , "])
async def test_plain(client: httpx.AsyncClient, encoding: str) -> None:
    assert (await post(client, PLAIN, encoding)).json() == {"generated_text": "He"}


async def test_a_byte_at_a_time(client: httpx.AsyncClient) -> None:
    async def drops() -> AsyncIterator[bytes]:
        for byte in gzip.compress(PLAIN):
            yield bytes([byte])

    assert (await post(client, drops(), "gzip")).json() == {"generated_text": "He"}


@pytest.mark.parametrize("path", [path for path, _ in BODIES])
@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "compress", "gzip, gzip", "br, gzip", "no\tsuch"])
async def test_others_are_refused_by_name(client: httpx.AsyncClient, path: str, encoding: str) -> None:
    answer = await post(client, PLAIN, encoding, path)
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip")
    error = answer.json()["error"]
    message = error["message"] if path.startswith("/v1/") else error
    named = encoding.replace("\t", "\\t")
    assert message == f"Content-Encoding `{named}` is not supported: send the body plain or as gzip"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (PLAIN, "it is not gzip"),
        (zlib.compress(PLAIN), "it is not gzip"),
        (gzip.compress(PLAIN)[:-1], "its end is missing"),
        (gzip.compress(PLAIN)[:-12], "its end is missing"),
        (b"", "its end is missing"),
        (gzip.compress(PLAIN)[:-8] + bytes(8), "it is not gzip"),
        (gzip.compress(PLAIN) + b"x", "something follows its end"),
        (gzip.compress(PLAIN) + gzip.compress(PLAIN), "something follows its end"),
    ],
)
async def test_damaged(client: httpx.AsyncClient, content: bytes, why: str) -> None:
    answer = await post(client, content, "gzip")
    assert answer.status_code == 400
    assert answer.json()["error"].endswith(f"Content-Encoding `gzip`: {why}")


async def test_a_bomb_is_too_large() -> None:
    """What comes out counts, and no more than that is ever held."""
    bomb = gzip.compress(bytes(50_000_000))
    app = build_app(FakeEngine(), payload_limit=100_000)
    assert len(bomb) < 100_000
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        tracemalloc.start()
        for path, _ in BODIES:
            answer = await post(client, bomb, "gzip", path)
            assert answer.status_code == 413
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 5_000_000
    assert app.state.api.permits.taken == 0


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 413)])
async def test_the_limit_is_that_of_a_plain_body(size: int, status: int) -> None:
    app = build_app(FakeEngine(), payload_limit=1000)
    content = PLAIN + b" " * (size - len(PLAIN))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for body, encoding in ((content, ""), (gzip.compress(content), "gzip")):
            assert (await post(client, body, encoding)).status_code == status
