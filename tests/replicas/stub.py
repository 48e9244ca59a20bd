"""A replica whose answers are written by a test, byte by byte; and the router in front of some of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from tests.api.fake import serve
from tgi.replicas.router import Router

Behaviour = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """A request as it came, and the way to answer it."""

    def __init__(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ", 2)
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        self.body = body
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        await self.send(f"HTTP/1.1 {status} OK\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def begin_stream(self) -> None:
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        await self.send(head.encode())

    async def piece(self, data: bytes) -> None:
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def end(self) -> None:
        await self.send(b"0\r\n\r\n")

    def cut(self) -> None:
        self.writer.transport.abort()


class Stub:
    """Use as `async with`."""

    def __init__(self, behave: Behaviour, model: str = "demo", **said: Any) -> None:
        self.behave = behave
        self.model = model
        self.said = said
        """What /health?verbose=1 says."""
        self.thawed = asyncio.Event()
        self.thawed.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.requests: list[Exchange] = []
        self.left = asyncio.Event()
        """A connection was closed while a request was answered."""

    async def __aenter__(self) -> Stub:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self.kill()

    def kill(self) -> None:
        """As when its whole process is killed."""
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n"))[:-2]
                exchange = Exchange(head, b"", writer)
                exchange.body = await reader.readexactly(int(exchange.headers.get("content-length", "0")))
                await self.thawed.wait()
                if exchange.target.startswith("/health"):
                    await exchange.answer(json.dumps(self.said).encode())
                elif exchange.target == "/v1/models":
                    entry = {"id": self.model, "object": "model", "created": 0, "owned_by": self.model}
                    await exchange.answer(json.dumps({"object": "list", "data": [entry]}).encode())
                else:
                    self.requests.append(exchange)
                    await self._unless_left(reader, exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _unless_left(self, reader: asyncio.StreamReader, exchange: Exchange) -> None:
        """One request at a time comes over a connection, so that whatever is read meanwhile is its end."""
        work = asyncio.ensure_future(self.behave(exchange))
        while not work.done():
            await asyncio.wait({work}, timeout=0.01)
            if reader.at_eof() or exchange.writer.is_closing():
                work.cancel()
                self.left.set()
                raise ConnectionError
        work.result()


@asynccontextmanager
async def routed(stubs: Sequence[Stub], **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Router]]:
    """The stubs behind a router, and a client of it, once all of them are known."""
    async with AsyncExitStack() as stack:
        for stub in stubs:
            await stack.enter_async_context(stub)
        async with routed_urls([stub.url for stub in stubs], **settings) as both:
            yield both


@asynccontextmanager
async def routed_urls(
    urls: Sequence[str], ready: int | None = None, **settings: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Router]]:
    router = Router(urls, **({"salt": "pepper", "index_blocks": 1 << 12} | settings))
    beating = asyncio.create_task(router.run())
    try:
        async with (
            serve(router) as url,  # type: ignore[arg-type]
            httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client,
        ):
            wanted = len(urls) if ready is None else ready
            await until(lambda: sum(replica.up for replica in router.replicas) >= wanted)
            yield client, router
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        for replica in router.replicas:
            replica.pool.abort()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for it. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (of whatever is looked at)
            await asyncio.sleep(0.01)
