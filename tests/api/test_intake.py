"""Bodies under way are bounded, each in time and all in memory, and the quick ones do not notice."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from tests.api.fake import FakeEngine, build_app, serve
from tests.api.test_wire import connection
from tgi.api.server import intake

SIZE = 1_900_000
ROUTES = ["/generate", "/v1/chat/completions", "/tokenize", "/vertex", "/invocations"]
CONTENT = json.dumps({"inputs": "x"}).encode()


def head(path: str, length: int | None = SIZE) -> bytes:
    """`length` None: in chunks."""
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{framing}\r\n\r\n".encode()


def status_of(answer: bytes) -> int:
    return int(answer.split()[1])


@pytest.mark.parametrize("path", ROUTES)
async def test_a_body_that_trickles_in_is_given_up(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much came at first; the answer says why, and a client that goes on is not listened to for ever."""
    monkeypatch.setattr(intake, "PATIENCE_S", 0.2)
    for first in (10, 500_000):
        async with serve(build_app(FakeEngine())) as address, connection(address) as (reader, writer):
            writer.write(head(path) + b" " * first)
            received = asyncio.create_task(reader.readuntil(b"}"))
            while not received.done():
                writer.write(b" ")
                await asyncio.sleep(0.02)
            answer = await received
            assert status_of(answer) == 408
            assert b"too slowly: at least 1024 bytes a second" in answer


async def test_a_steady_body_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "PATIENCE_S", 0.5)
    async with serve(build_app(FakeEngine())) as address, connection(address) as (reader, writer):
        length = 20 * 1024
        writer.write(head("/generate", length))
        for _ in range(20):
            writer.write(b" " * (1024 if _ < 19 else 1024 - len(CONTENT)))
            await asyncio.sleep(0.05)  # a second in all
        writer.write(CONTENT)
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 200


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
async def test_many_unfinished_bodies_are_bounded_in_sum(chunked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that hold most for longest are given up, with 429; who comes with a whole body is served at once."""
    monkeypatch.setattr(intake, "TOTAL_LIMIT", 5_000_000)
    app = build_app(FakeEngine(), max_concurrent_requests=4)
    bodies = app.state.api.intake
    assert bodies.limit == 5_000_000
    piece = b" " * (SIZE - 100)
    most = 0

    async def unfinished(address: str) -> bytes:
        nonlocal most
        async with connection(address) as (reader, writer):
            framed = b"%x\r\n" % len(piece) + piece + b"\r\n" if chunked else piece
            writer.write(head(ROUTES[0], None if chunked else SIZE) + framed)
            try:
                while True:
                    most = max(most, bodies.held)
                    async with asyncio.timeout(0.02):
                        return await reader.readuntil(b"\r\n\r\n")
            except TimeoutError:
                pass
            try:
                return await reader.readuntil(b"\r\n\r\n")
            except (ConnectionError, asyncio.IncompleteReadError):
                return b"HTTP/1.1 000"  # still sending when it was refused

    async with serve(app) as address:
        clients = [asyncio.create_task(unfinished(address)) for _ in range(30)]
        async with asyncio.timeout(20):
            while sum(task.done() for task in clients) < 27:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with httpx.AsyncClient(base_url=address) as client:
            began = time.monotonic()
            assert (await client.post("/generate", content=CONTENT, headers=JSON)).status_code == 200
            assert (await client.post("/generate", content=piece + CONTENT, headers=JSON)).status_code == 200
            assert time.monotonic() - began < 10
        assert bodies.held <= bodies.limit
        assert most <= bodies.limit
        assert {status_of(task.result()) for task in clients if task.done()} <= {429, 0}
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        async with asyncio.timeout(10):
            while bodies.held:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


JSON = {"content-type": "application/json"}


async def test_what_is_read_or_refused_is_held_no_longer() -> None:
    app = build_app(FakeEngine(), payload_limit=1000)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        bodies: list[tuple[Any, int]] = [
            (CONTENT, 200),
            (b"{", 400),
            (b" " * 2000, 413),
            (iter([b" " * 600] * 3), 413),
            (b"{}", 422),
        ]
        for content, status in bodies:
            if not isinstance(content, bytes):
                content = _aiter(list(content))
            assert (await client.post("/generate", content=content, headers=JSON)).status_code == status
            assert app.state.api.intake.held == 0
    assert build_app(FakeEngine(), payload_limit=100 << 20).state.api.intake.limit == 200 << 20


async def _aiter(pieces: list[bytes]) -> Any:
    for piece in pieces:
        yield piece
