"""A scripted HTTP server and a clock that only moves when told, for tests of the load generator."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Handler = Callable[["Exchange"], Awaitable[None]]


class Clock:
    """Time of a test. Knows how often it was asked: the client asks once for every packet it reads."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now
        self._asked = asyncio.Event()

    def __call__(self) -> float:
        self._asked.set()
        return self.now

    async def read(self, send: Callable[[], Awaitable[None]]) -> None:
        """Send something and wait until the client has read it."""
        self._asked.clear()
        await send()
        await asyncio.wait_for(self._asked.wait(), 10)


@dataclass
class Exchange:
    """One request, and the way to answer it."""

    path: str
    headers: dict[str, str]
    body: Any
    writer: asyncio.StreamWriter
    connection: int
    """Number of the connection it came on."""

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def json(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        await self.raw(head.encode() + body)

    async def head(self) -> None:
        """Begin a stream."""
        await self.raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    async def event(self, *values: Any) -> None:
        """Events, in one chunk."""
        texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
        await self.chunk("".join(f"data: {text}\n\n" for text in texts).encode())

    async def chunk(self, data: bytes) -> None:
        await self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")


class FakeServer:
    """Listens on a free port; every request goes to `handler`."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.connections = 0
        self.problems: list[BaseException] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> FakeServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        assert not self.problems, self.problems

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while not writer.is_closing():
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                path = lines[0].split(" ")[1]
                await self.handler(Exchange(path, headers, json.loads(body) if body else None, writer, number))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception as problem:
            self.problems.append(problem)
        finally:
            writer.close()


def tgi_token(index: int, *, last: tuple[int, int] | None = None) -> dict[str, Any]:
    """An event of `/generate_stream`; `last`: generated tokens and prompt tokens."""
    event: dict[str, Any] = {"index": index, "token": {"id": 5, "text": "a", "logprob": -1.0, "special": False}}
    details = (
        {"finish_reason": "length", "generated_tokens": last[0], "seed": 0, "input_length": last[1]} if last else None
    )
    return {**event, "generated_text": "aa" if last else None, "details": details}


def words(text: str) -> int:
    return len(text.split())


async def tgi(exchange: Exchange) -> None:
    """A TGI server whose tokens are words, and come at once."""
    if exchange.path == "/info":
        await exchange.json({"model_id": "fake/model", "max_total_tokens": 100, "router": "text-generation-router"})
        return
    if exchange.path != "/generate_stream":
        await exchange.json({"error": "no such route", "error_type": "x"}, 404)
        return
    parameters = exchange.body["parameters"]
    prompt = min(words(exchange.body["inputs"]), parameters.get("truncate", 1 << 30))
    count = parameters["max_new_tokens"]
    await exchange.head()
    for index in range(1, count):
        await exchange.event(tgi_token(index))
    await exchange.event(tgi_token(count, last=(count, prompt)))
    await exchange.end()


@contextmanager
def in_thread(handler: Handler) -> Iterator[FakeServer]:
    """A server in a thread of its own, for commands that have a loop of their own."""
    ready, server = threading.Event(), FakeServer(handler)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with server:
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
