"""HTTP/1.1 to a replica: an asyncio protocol on httptools that hands on heads and bodies as they come.

Owns connections and what their end means. Does not know what is in a body. A slow reader of an answer stops the
reading from the replica, which then stops writing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

from tgi.errors import ArgumentError

Headers = Sequence[tuple[bytes, bytes]]
READ_AHEAD = 1 << 18
"""Bytes of an answer that are kept for a slow reader."""
IDLE_S = 3.0
"""An unused connection is closed after this: before the replica does it (uvicorn: 5 s)."""
CONNECT_S = 2.0


class UpstreamError(Exception):
    """The connection failed."""

    def __init__(self, message: str, *, begun: bool = True, reused: bool = False) -> None:
        super().__init__(message)
        self.begun = begun
        """The request was sent."""
        self.reused = reused
        """It had been idle: the replica may just have closed it, which says nothing about its health."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first part of an answer."""

    status: int
    headers: list[tuple[bytes, bytes]]

    def get(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)


class Connection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.usable = False
        self.reused = False
        self.idle_since = 0.0
        self.last_byte = 0.0
        self._reset("GET")

    def _reset(self, method: str) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._status = 0
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._complete = False
        self._failure: UpstreamError | None = None
        self._news = asyncio.Event()
        self._bodyless = method == "HEAD"
        self._until_close = True

    async def ask(self, method: str, target: bytes, headers: Headers, body: bytes) -> Head:
        """Send a request and wait for the head of the answer. Raises UpstreamError."""
        assert self.transport is not None
        self._reset(method)
        lines = [method.encode(), b" ", target, b" HTTP/1.1\r\n"]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        self.transport.writelines([b"".join((*lines, b"\r\n")), body] if body else [b"".join((*lines, b"\r\n"))])
        while not self._status:
            if self._failure is not None:
                raise self._failure
            await self._wait()
        return Head(self._status, self._headers)

    async def body(self) -> AsyncGenerator[bytes, None]:
        """What follows the head, as it comes. Raises UpstreamError when the connection breaks."""
        while True:
            if self._pieces:
                piece = b"".join(self._pieces) if len(self._pieces) > 1 else self._pieces[0]
                self._pieces.clear()
                self._held = 0
                if self._paused and self.transport is not None:
                    self._paused = False
                    self.transport.resume_reading()
                yield piece
            elif self._complete:
                return
            elif self._failure is not None:
                raise self._failure
            else:
                await self._wait()

    @property
    def whole(self) -> bool:
        """Nothing of the answer is to come."""
        return self._complete and not self._pieces

    def close(self) -> None:
        self.usable = False
        if self.transport is not None:
            self.transport.abort()

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.usable = True

    def data_received(self, data: bytes) -> None:
        self.last_byte = time.monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the answer is not HTTP ({error})")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if exc is None and self._status and self._until_close and not self._complete:
            self._complete = True  # HTTP/1.0: the end of the connection ends the body
            self._news.set()
        else:
            self._fail("the connection was closed")

    def _fail(self, reason: str) -> None:
        if self._failure is None and not self._complete:
            self._failure = UpstreamError(reason, reused=self.reused and not self.last_byte)
            self._news.set()

    # -- httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._until_close = False
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        self._news.set()
        if self._bodyless:
            self._complete, self.usable = True, False

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._held += len(body)
        if self._held > READ_AHEAD and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        self._news.set()

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.usable = False
        self._complete = True
        self._news.set()


def address(url: str) -> tuple[str, str, int]:
    """An address in its one spelling, its host and its port. Raises ArgumentError for one that is none."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "http" or not parts.hostname or not port or parts.query or parts.path not in ("", "/"):
        raise ArgumentError(f"--replica {url}: expected an address such as http://10.0.0.7:8080")
    return f"http://{parts.netloc}", parts.hostname, port


class Pool:
    """Connections to one replica."""

    def __init__(self, url: str) -> None:
        """Raises ArgumentError for an address that is none."""
        self.url, self.host, self.port = address(url)
        self.netloc = self.url.removeprefix("http://").encode()
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()

    async def connect(self, *, fresh: bool = False) -> Connection:
        """One that is free, or a new one. Raises UpstreamError."""
        now = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and not fresh and now - connection.idle_since < IDLE_S:
                connection.reused, connection.last_byte = True, 0.0
                return connection
            self.drop(connection)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(Connection, self.host, self.port)
        except (OSError, TimeoutError) as error:
            reason = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
            raise UpstreamError(f"cannot connect: {reason}", begun=False) from None
        self._all.add(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        """After an exchange, whole or not."""
        if connection.whole and connection.usable:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            self.drop(connection)

    def drop(self, connection: Connection) -> None:
        connection.close()
        self._all.discard(connection)

    def abort(self) -> None:
        """Break all connections: their exchanges fail at once."""
        for connection in list(self._all):
            self.drop(connection)
        self._idle.clear()
