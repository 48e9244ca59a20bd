"""A client that sends too much head or sends too slowly is shown the door; nobody else notices."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import uvicorn

from tgi.launcher import http_protocol
from tgi.launcher.http_protocol import HEAD_LIMIT, BoundedProtocol

HEAD = b"POST /x HTTP/1.1\r\nhost: x\r\n"


async def echo_length(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with the number of bytes of the body; on /slow only when told; on /early unread."""
    length, more = 0, True
    if scope["path"] == "/early":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"early"})
        return
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        more = message["more_body"]
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    body = str(length).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Server(uvicorn.Server):
    """Says when it listens."""

    opened: asyncio.Event

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.opened.set()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(
        echo_length, port=0, http=BoundedProtocol, lifespan="off", log_level=logging.CRITICAL, ws="none"
    )
    server = Server(config)
    server.opened = asyncio.Event()
    task = asyncio.create_task(server.serve())
    await server.opened.wait()
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


async def talk(port: int, *pieces: bytes) -> tuple[int, bytes]:
    """Send, wait until the server closes; status (0: none) and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        data = await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        data = b""
    finally:
        writer.close()
    head, _, body = data.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


CLOSE = b"connection: close\r\n"


async def test_ordinary_requests_pass(port: int) -> None:
    big = b"x" * 1_000_000
    head = HEAD + CLOSE + b"x-long: " + b"a" * (HEAD_LIMIT - 1000) + b"\r\n"
    assert await talk(port, head + b"content-length: 1000000\r\n\r\n", big) == (200, b"1000000")
    chunks = [b"4\r\nabcd\r\n"] * 20_000
    assert await talk(port, head + b"transfer-encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n") == (200, b"80000")


async def test_many_requests_on_one_connection(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3000):  # together far beyond the limit of one head
        writer.write(HEAD + b"content-length: 2\r\n\r\nab")
        assert b"200" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(1) == b"2"
    writer.close()


PIECES = [b"a" * 60_000] * 12


@pytest.mark.parametrize(
    "start",
    [
        HEAD + b"x-long: ",
        b"POST /",
        HEAD + b"transfer-encoding: chunked\r\n\r\n4;extension=",
        HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\ntrailer: ",
    ],
    ids=["header", "path", "extension of a chunk", "trailer"],
)
async def test_endless_heads(port: int, start: bytes) -> None:
    status, body = await talk(port, start, *PIECES)
    assert status in (0, 400, 431)  # 0: closed while we were still writing, or the app had the request already
    if body:
        assert json.loads(body)["error_type"] == "validation"
    assert await talk(port, HEAD + CLOSE + b"content-length: 0\r\n\r\n") == (200, b"0")


async def test_many_small_headers(port: int) -> None:
    status, body = await talk(port, HEAD, *[b"".join(b"x-%d: 1\r\n" % n for n in range(4000))] * 3)
    assert (status, json.loads(body)) == (
        431,
        {"error": "A head may have 65536 bytes", "error_type": "validation"},
    )


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00hello\r\n\r\n", HEAD + b"transfer-encoding: chunked\r\n\r\nno chunk\r\n"]
)
async def test_what_is_not_http(port: int, data: bytes) -> None:
    expected = b'{"error":"Invalid HTTP request received.","error_type":"validation"}'
    assert await talk(port, data) == (400, expected)


@pytest.mark.parametrize("pieces", [[], [HEAD], [HEAD + b"content-length: 9\r\n\r\nab"], [HEAD + CLOSE[:5]]])
async def test_slow_requests(port: int, pieces: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "PATIENCE_S", 0.1)
    assert await talk(port, *pieces) == (0, b"")


async def test_a_head_that_trickles_in(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes alone do not buy time."""
    monkeypatch.setattr(http_protocol, "PATIENCE_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = bytearray()

    async def read() -> None:
        with suppress(ConnectionResetError):  # a byte under way when the server closes is answered by a reset
            while received := await reader.read(1000):
                answer.extend(received)

    closed = asyncio.create_task(read())
    for byte in HEAD * 4:
        if closed.done():
            break
        writer.write(bytes([byte]))
        await asyncio.sleep(0.01)
    await asyncio.wait_for(closed, 1)
    assert not answer
    writer.close()


async def test_slow_answers_are_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by requests that came behind them on the same connection."""
    monkeypatch.setattr(http_protocol, "PATIENCE_S", 0.1)
    slow = b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab"
    big = HEAD + CLOSE + b"content-length: 300000\r\n\r\n" + b"x" * 300_000
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(slow + big)
    data = await asyncio.wait_for(reader.read(), 10)
    assert data.count(b"HTTP/1.1 200") == 2
    assert data.endswith(b"300000")
    writer.close()


async def test_who_goes_on_after_an_early_answer(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of the body is dropped, so that he can read the answer, but not for ever."""
    monkeypatch.setattr(http_protocol, "PATIENCE_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
    assert b"200 OK" in await reader.readuntil(b"early")
    ended = asyncio.create_task(reader.read())
    async with asyncio.timeout(5):
        while not ended.done():
            writer.write(b"x" * 100)
            await asyncio.sleep(0.02)
    with suppress(ConnectionResetError):
        assert await ended == b""
    writer.close()
