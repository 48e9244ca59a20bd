"""Who leaves, who only stops sending, who does not read, and what a client of HTTP/1.0 gets."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
import uvloop

from tgi.launcher import http_half_close, http_protocol, http_unread
from tgi.launcher.http_protocol import BoundedProtocol

BIG = 32 << 20
"""More than the sockets of both ends hold."""


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """The loop that the server runs on."""
    return uvloop.EventLoopPolicy()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_half_close, "FIRST_PROBE_S", 0.1)
    monkeypatch.setattr(http_half_close, "LOOK_EVERY_S", 0.01)


class Server(uvicorn.Server):
    """An application that does what the path says, and notes who left."""

    def __init__(self) -> None:
        config = uvicorn.Config(
            self.answer,
            port=0,
            http=BoundedProtocol,
            lifespan="off",
            log_level=logging.CRITICAL,
            ws="none",
            interface="asgi3",
        )
        super().__init__(config)
        self.opened = asyncio.Event()
        self.begun: list[str] = []
        self.left: list[str] = []
        self.release = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.opened.set()

    @property
    def port(self) -> int:
        return self.servers[0].sockets[0].getsockname()[1]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for what tells nobody that it happened."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def answer(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        path, length, more = scope["path"], 0, True
        self.begun.append(path)
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.append(path)
                return
            length += len(message["body"])
            more = message["more_body"]
        if path.startswith("/wait"):
            gone = asyncio.ensure_future(receive())
            released = asyncio.ensure_future(self.release.wait())
            await asyncio.wait((gone, released), return_when=asyncio.FIRST_COMPLETED)
            released.cancel()
            if gone.done():
                self.left.append(path)
                return
            gone.cancel()
        await self._respond(path, length, send)

    async def _respond(self, path: str, length: int, send: Any) -> None:
        pieces = {"/stream": [b"data: 1\n\n", b"", b"data: 2\n\n", b""], "/big": [bytes(BIG)]}
        body = pieces.get(path, [f"{path} {length};".encode()])
        headers = []
        if path not in ("/stream", "/endless"):
            headers = [(b"content-length", str(sum(map(len, body))).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if path == "/endless":
            with suppress(TimeoutError):
                await asyncio.wait_for(self._endless(send), 0.3)
            return
        for number, piece in enumerate(body, 1):
            await send({"type": "http.response.body", "body": piece, "more_body": number < len(body)})

    async def _endless(self, send: Any) -> None:
        while True:
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    task = asyncio.create_task(server.serve())
    await server.opened.wait()
    yield server
    server.should_exit = True
    await task


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def small_socket() -> socket.socket:
    """With a small receive buffer, so that what is not read fills the server's."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.setblocking(False)
    return sock


@asynccontextmanager
async def connection(server: Server) -> AsyncIterator[Connection]:
    sock = small_socket()
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=32_768)
    try:
        yield reader, writer
    finally:
        writer.close()


def get(path: str, version: str = "1.1", *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/{version}", "host: x", *lines, "", ""]).encode()


def post(path: str, length: int, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode() + body


async def read(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(), 10)


BEHIND = {
    "nothing": b"",
    "a request": get("/behind"),
    "many requests": get("/behind") * 500,
    "half a head": get("/behind")[:15],
    "half a body": post("/behind", 100_000, bytes(50_000)),
    "much of a body": post("/behind", 3_000_000, bytes(2_900_000)),
    "far too much": post("/behind", 60_000_000, bytes(20_000_000)),
}


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
async def test_who_leaves_is_noticed(server: Server, behind: bytes, reset: bool) -> None:
    """Whatever he has sent behind the request that is not answered yet; none of that is begun."""
    async with connection(server) as (_, writer):
        writer.write(post("/wait", 5, b"12345"))
        writer.write(behind)
        await asyncio.wait_for(writer.drain(), 10)
        await server.until(lambda: server.begun)
        if reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await server.until(lambda: server.left)
    assert (server.begun, server.left) == (["/wait"], ["/wait"])
    await server.until(lambda: not server.server_state.connections)


async def test_what_comes_behind_is_answered_in_its_turn(server: Server) -> None:
    async with connection(server) as (reader, writer):
        writer.write(get("/wait/1") + post("/echo", 300_000, bytes(300_000)) + get("/wait/2") * 300)
        await server.until(lambda: server.begun)
        server.release.set()
        writer.write(get("/last", "1.1", "connection: close"))
        answer = await read(reader)
    assert answer.count(b"HTTP/1.1 200 OK") == 303
    assert answer.index(b"/wait/1 0;") < answer.index(b"/echo 300000;") < answer.index(b"/wait/2 0;")
    assert answer.endswith(b"/last 0;")


async def test_too_much_ahead_costs_only_what_is_ahead(server: Server) -> None:
    """The whole requests are answered, then the connection ends; the sum over all connections counts, too."""
    async with connection(server) as (reader, writer):
        writer.transport.set_write_buffer_limits(0)
        writer.write(get("/wait/1") + get("/wait/2") + post("/echo", 60_000_000, bytes(20_000_000)))
        await asyncio.wait_for(writer.drain(), 10)
        await asyncio.sleep(0.1)  # for what is under way: who still sends when the server closes sees a reset
        server.release.set()
        answer = await read(reader)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.endswith(b"/wait/2 0;")


async def test_what_all_send_ahead_is_bounded_in_sum(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "ALL_HELD_LIMIT", 2_000_000)
    async with connection(server) as one, connection(server) as two, connection(server) as three:
        for _, writer in (one, two, three):
            writer.write(get("/wait") + post("/echo", 900_000, bytes(900_000 - 1)))
            await asyncio.wait_for(writer.drain(), 10)
        await asyncio.sleep(0.05)
        held = [len(protocol._held) for protocol in server.server_state.connections]  # type: ignore[union-attr]
        assert 0 < sum(held) <= 2_000_000
        server.release.set()
        assert (await read(three[0])).count(b"200 OK") == 1
        one[1].write(b"x")
        assert b"/echo 900000;" in await one[0].readuntil(b"/echo 900000;")


HALF = {
    "one": ([get("/echo")], [b"/echo 0;"]),
    "slow": ([get("/wait")], [b"/wait 0;"]),
    "with a body": ([post("/wait", 100_000, bytes(100_000))], [b"/wait 100000;"]),
    "two": ([get("/wait/1"), get("/wait/2")], [b"/wait/1 0;", b"/wait/2 0;"]),
    "much behind": ([get("/wait"), post("/echo", 500_000, bytes(500_000))], [b"/wait 0;", b"/echo 500000;"]),
    "half a request behind": ([get("/wait"), post("/echo", 9, b"1234")], [b"/wait 0;"]),
    "much of one behind": ([get("/wait"), post("/echo", 900_000, bytes(800_000))], [b"/wait 0;"]),
    "a stream": ([get("/stream")], [b"data: 1\n\n", b"data: 2\n\n"]),
    "HTTP/1.0": ([get("/wait", "1.0")], [b"/wait 0;"]),
}


@pytest.mark.parametrize("wait", [0.0, 0.3], ids=["soon", "late"])
@pytest.mark.parametrize(("requests", "answers"), HALF.values(), ids=HALF)
async def test_half_close_gets_its_answer(
    server: Server, requests: list[bytes], answers: list[bytes], wait: float
) -> None:
    """To whole requests; a late answer may have interim ones before it, which HTTP/1.0 does not know."""
    async with connection(server) as (reader, writer):
        for request in requests:
            writer.write(request)
        writer.write_eof()
        await asyncio.wait_for(writer.drain(), 10)
        await server.until(lambda: server.begun)
        await asyncio.sleep(wait)
        server.release.set()
        received = await read(reader)
    interim = http_half_close.PROBE
    if not wait or b"HTTP/1.0" in requests[0]:
        assert not received.startswith(interim)
    places = [received.replace(interim, b"").index(answer) for answer in answers]
    assert places == sorted(places)
    assert received.count(b"200 OK") == len(answers) - ("stream" in requests[0].decode())
    assert set(server.left) <= {"/echo"}  # the one that was begun and never came to its end
    await server.until(lambda: not server.server_state.connections)


@pytest.mark.parametrize("request_", [get("/wait")[:9], post("/wait", 9, b"1234")], ids=["head", "body"])
async def test_half_close_within_a_request_ends_it(server: Server, request_: bytes) -> None:
    async with connection(server) as (reader, writer):
        writer.write(request_)
        writer.write_eof()
        assert await read(reader) == b""
    await server.until(lambda: len(server.left) == len(server.begun))


async def test_half_close_and_then_gone(server: Server) -> None:
    async with connection(server) as (reader, writer):
        writer.write(get("/wait"))
        writer.write_eof()
        assert await asyncio.wait_for(reader.readexactly(25), 10) == http_half_close.PROBE
        assert not server.left
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await server.until(lambda: server.left)


async def test_a_slow_reader_is_cut_off_when_its_route_gives_up(server: Server) -> None:
    """The socket is closed and what it holds let go, though nobody read it."""
    loop = asyncio.get_running_loop()
    with small_socket() as sock:
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        await loop.sock_sendall(sock, get("/endless"))
        await server.until(lambda: server.begun)
        await server.until(lambda: not server.server_state.connections)
        with pytest.raises(ConnectionResetError):
            while await loop.sock_recv(sock, 1 << 20):
                pass


@pytest.mark.parametrize("keep", [True, False], ids=["kept alive", "to be closed"])
async def test_a_whole_answer_that_nobody_reads(server: Server, keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_unread, "WRITE_TIMEOUT_S", 0.2)
    async with connection(server) as (_, writer):
        writer.write(get("/big", "1.1", "connection: keep-alive" if keep else "connection: close"))
        await server.until(lambda: server.begun)
        await server.until(lambda: not server.server_state.connections)


async def test_a_steady_reader_may_take_its_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_unread, "WRITE_TIMEOUT_S", 0.2)
    async with connection(server) as (reader, writer):
        writer.write(get("/big", "1.1", "connection: close"))
        received = 0
        while piece := await asyncio.wait_for(reader.read(1 << 20), 10):
            received += len(piece)
            await asyncio.sleep(0.001)  # in all longer than the timeout
    assert received > BIG


@pytest.mark.parametrize("lines", [(), ("connection: keep-alive",)], ids=["plain", "keep-alive"])
async def test_a_stream_to_http_1_0_ends_with_the_connection(server: Server, lines: tuple[str, ...]) -> None:
    """It knows neither chunks nor how long the body will be."""
    async with connection(server) as (reader, writer):
        writer.write(get("/stream", "1.0", *lines))
        head, _, body = (await read(reader)).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"content-length" not in head.lower()
    assert b"connection: close" in head.lower()
    assert body == b"data: 1\n\ndata: 2\n\n"


async def test_other_answers_to_http_1_0(server: Server) -> None:
    async with connection(server) as (reader, writer):
        writer.write(get("/echo", "1.0"))
        answer = await read(reader)
    assert b"content-length: 8\r\n" in answer
    assert answer.endswith(b"\r\n\r\n/echo 0;")
    async with connection(server) as (reader, writer):
        writer.write(get("/stream", "1.0").replace(b"GET", b"HEAD"))
        head, _, body = (await read(reader)).partition(b"\r\n\r\n")
    assert (b"chunked" in head, body) == (False, b"")


async def test_streams_to_http_1_1_stay_chunked(server: Server) -> None:
    async with connection(server) as (reader, writer):
        writer.write(get("/stream") + get("/stream", "1.1", "connection: close"))
        answer = await read(reader)
    assert answer.count(b"transfer-encoding: chunked") == 2
    assert answer.count(b"9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n") == 2
