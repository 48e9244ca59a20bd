"""A small HTTP/1.1 client for streams: an asyncio protocol, httptools, and a clock read once a packet.

Owns connections, keep-alive and what a status or a broken connection means. Does not know what a
body says (`dialects`). Light on purpose: at thousands of tokens a second the client shares the
machine with the server it measures.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

from tgi.bench.errors import BenchError, RequestError, StatusError

Sink = Callable[[bytes, float], None]
"""Gets each piece of a body, and when it was read."""
MESSAGE_CHARACTERS = 300


class Connection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.usable = False
        self.transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self._reset(_nowhere)

    async def exchange(self, request: bytes, sink: Sink) -> tuple[int, bytes]:
        """Send a request; bodies of status 200 go to `sink`, others are the second part of the answer.

        Raises RequestError when the connection breaks or what comes is not HTTP.
        """
        assert self.transport is not None
        self._reset(sink)
        self._done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            await self._done
        except BaseException:
            self.close()
            raise
        finally:
            self._done = None
        return self.status, b"".join(self.other_body)

    def close(self) -> None:
        self.usable = False
        if self.transport is not None:
            self.transport.abort()

    def _reset(self, sink: Sink) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._sink = sink
        self._now = 0.0
        self._has_length = False
        self._in_body = False
        self.status = 0
        self.other_body: list[bytes] = []
        self.answered = False
        """Anything at all came back."""

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.usable = True

    def data_received(self, data: bytes) -> None:
        self._now = self.clock()
        self.answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._fail(error.__context__ or error)  # a mistake of ours in a sink, not the server's
        except httptools.HttpParserError as error:
            self._fail(RequestError("not HTTP", f"the answer is not HTTP ({error})"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if exc is None and self._in_body and not self._has_length:  # HTTP/1.0: the end of the connection ends it
            self._finish()
        else:
            self._fail(RequestError("connection lost", f"the server closed the connection{f': {exc}' if exc else ''}"))

    # -- httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        if self.status == 200:
            self._sink(body, self._now)
        else:
            self.other_body.append(body)

    def on_message_complete(self) -> None:
        self.usable = self.usable and self._parser.should_keep_alive()
        self._in_body = False
        self._finish()

    def _finish(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, error: BaseException) -> None:
        self.usable = False
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


class Client:
    """Requests to one server, over as many connections as there are requests at once."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float = 600.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`url`: scheme, host, port, and a path to put before every route. Raises BenchError for another thing."""
        self.url, self._host, self._port, self._path, secure = _parts(url)
        self._tls = ssl.create_default_context() if secure else None
        self._timeout = timeout
        self.clock = clock
        self._idle: list[Connection] = []
        lines = [f"Host: {urlsplit(self.url).netloc}", "User-Agent: tgi-bench"]
        if api_key:
            if not api_key.isascii() or not api_key.isprintable():
                raise BenchError("the API key can only hold printable ASCII characters")
            lines.append(f"Authorization: Bearer {api_key}")
        self._headers = "\r\n".join(lines)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def warm(self, count: int) -> None:
        """Open this many connections beforehand, so that connecting is no part of what is measured."""
        self._idle = [one for one in self._idle if one.usable]
        self._idle += await asyncio.gather(*(self._connect() for _ in range(count - len(self._idle))))

    async def get(self, path: str) -> tuple[int, Any]:
        """Status, and the answer as JSON (None when it is not). Raises RequestError."""
        body: list[bytes] = []
        status, other = await self._send(f"GET {self._path}{path}", b"", lambda piece, _: body.append(piece))
        try:
            return status, json.loads(b"".join(body) or other)
        except ValueError:
            return status, None

    async def post(self, path: str, body: bytes, sink: Sink) -> None:
        """Post JSON, give the answer to `sink` as it comes. Raises RequestError, StatusError for its status."""
        status, other = await self._send(f"POST {self._path}{path}", body, sink)
        if status != 200:
            raise StatusError(status, _message(other))

    async def _send(self, line: str, body: bytes, sink: Sink) -> tuple[int, bytes]:
        head = f"{line} HTTP/1.1\r\n{self._headers}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        request = f"{head}\r\n".encode("latin-1") + body
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(request, sink)
        except TimeoutError:
            raise RequestError("timeout", f"no end of the answer within {self._timeout:g} s") from None

    async def _exchange(self, request: bytes, sink: Sink) -> tuple[int, bytes]:
        while True:
            connection, reused = self._take(), True
            if connection is None:
                connection, reused = await self._connect(), False
            try:
                result = await connection.exchange(request, sink)
            except RequestError:
                # The server may close a connection that was idle, just as the request is on its way.
                if reused and not connection.answered:
                    continue
                raise
            if connection.usable:
                self._idle.append(connection)
            else:
                connection.close()
            return result

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self.clock), self._host, self._port, ssl=self._tls
            )
        except OSError as error:
            raise RequestError("connection refused", f"cannot connect to {self.url}: {_reason(error)}") from None
        return connection


def _nowhere(piece: bytes, now: float) -> None:
    """The sink of a connection that waits."""


def _parts(url: str) -> tuple[str, str, int, str, bool]:
    """Normal form, host, port, path, TLS. Raises BenchError."""
    text = url.strip() if "://" in url else f"http://{url.strip()}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise BenchError(f"--url {url}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise BenchError(f"--url {url}: expected something like http://127.0.0.1:8080")
    if any(character <= " " or character > "~" for character in text):
        raise BenchError(f"--url {url}: expected something like http://127.0.0.1:8080")
    secure = parts.scheme == "https"
    path = parts.path.rstrip("/").removesuffix("/v1")  # the address OpenAI clients are given works too
    return f"{parts.scheme}://{parts.netloc}{path}", parts.hostname, port or (443 if secure else 80), path, secure


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    return (error.strerror or str(error) or type(error).__name__).lower()


def _message(body: bytes) -> str:
    """What an error body says, whatever its form."""
    text = body.decode("utf-8", "replace").strip()
    try:
        value: Any = json.loads(text)
    except ValueError:
        return text[:MESSAGE_CHARACTERS]
    for key in ("error", "message", "detail"):
        if isinstance(value, dict) and key in value:
            value = value[key]
    return str(value)[:MESSAGE_CHARACTERS]
