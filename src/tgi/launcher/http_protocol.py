"""HTTP as uvicorn speaks it, with bounds on what a client may send and how long it may take.

Owns the size of a head (and of trailers, which come the same way), the patience with a request that arrives
slowly, requests that come behind an unanswered one, what the end of a client's input means, and HTTP/1.0.
llhttp bounds neither heads nor time, and collects a header in time quadratic in its size: without a bound one
client stalls all others. The size of a body is the routes' affair.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tgi.launcher.http_half_close import HalfClosed
from tgi.launcher.http_unread import UnreadAnswer, cut_off

HEAD_LIMIT = 65_536
"""Bytes that may come without a head, a piece of a body or a request being complete; one read more is let pass."""
PATIENCE_S = 60.0
"""For a whole head, counted from the start of the connection or of the request; and between two pieces of a body."""
HELD_LIMIT = 4 << 20
"""Bytes kept of what one client sends behind a request that is not answered yet."""
ALL_HELD_LIMIT = 64 << 20
"""Bytes kept so of all clients together."""
PIECE = 65_536


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    It is read all the time, also while a request is unanswered: else nobody would notice that its client left.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._application, self.app = self.app, self._answer
        self._pending = 0
        """Bytes since the parser last got anywhere."""
        self._timer: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None
        """The request being answered, or the last one; `cycle` is the last one that came."""
        self._held = bytearray()
        """What came behind a request that waits for its turn, unparsed."""
        self._input_ended = False
        """Nothing more is read: the client ended its side, or sent too much ahead."""
        self._unread: UnreadAnswer | None = None
        self._half_closed: HalfClosed | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._unread = UnreadAnswer(transport, self.loop)
        self._start_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        for watch in (self._unread, self._half_closed):
            if watch is not None:
                watch.stop()
        for cycle in (self._running, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        self._held.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._input_ended:
            return
        if self.pipeline or self._held:
            self._hold(data)
        else:
            self._parse(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        """True keeps the connection open: whoever has sent a whole request may end his side and wait."""
        self._input_ended = True
        self._stop_waiting()
        if not self._held:
            self._expect_no_more()
        if not self._is_answering():
            return False
        if self._half_closed is None:
            self._half_closed = HalfClosed(self.transport, self.loop, self._may_probe)
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_unread()

    def send_400_response(self, msg: str) -> None:
        """Whatever is not HTTP; called by uvicorn."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:
            self._start_waiting()

    def on_headers_complete(self) -> None:
        self._pending = 0
        self._start_waiting()
        super().on_headers_complete()
        if self._running is None or self._running.response_complete:
            self._running = self.cycle

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        if not self.cycle.response_complete:  # what follows an early answer is dropped, and not for ever
            self._start_waiting()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._pending = 0
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        following = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if following is not None and not self.transport.is_closing():
            self._running = following
            if following.more_body:
                self._start_waiting()  # anew for one that had to wait
        if self.transport.is_closing() or self.pipeline or self._is_answering():
            return
        if self._held:
            self.loop.call_soon(self._parse_held)
        elif self._input_ended:
            self.transport.close()

    def _parse(self, data: bytes) -> None:
        self._pending += len(data)
        super().data_received(data)
        if self._pending > HEAD_LIMIT and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"A head may have {HEAD_LIMIT} bytes")
        if self.pipeline:
            self.flow.resume_reading()

    def _hold(self, data: bytes) -> None:
        """Keep what comes behind a waiting request; too much of it is not read, and the connection ends early."""
        self._held += data
        everyone = (one for one in self.connections if isinstance(one, BoundedProtocol))
        if len(self._held) > HELD_LIMIT or sum(len(one._held) for one in everyone) > ALL_HELD_LIMIT:
            self._held.clear()
            self._input_ended = True
            self._expect_no_more()

    def _parse_held(self) -> None:
        """By pieces, so that no more than a few requests are parsed ahead."""
        while self._held and not self.pipeline and not self.transport.is_closing():
            piece = bytes(self._held[:PIECE])
            del self._held[:PIECE]
            self._parse(piece)
        if self._input_ended and not self._held and not self.transport.is_closing():
            self._expect_no_more()
            if not self._is_answering():
                self.transport.close()

    def _expect_no_more(self) -> None:
        """Forget a waiting request that will never be complete, and close after the last whole one."""
        if self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()
        last = self.pipeline[0][0] if self.pipeline else self._running
        if last is not None:
            last.keep_alive = False

    def _is_answering(self) -> bool:
        """Whether a whole request is not answered yet."""
        running = self._running
        return bool(self.pipeline) or (running is not None and not running.response_complete and not running.more_body)

    def _may_probe(self) -> bool:
        running = self._running
        return running is not None and not running.response_started and running.scope["http_version"] != "1.0"

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """The application, as uvicorn is given it for each request."""
        cycle = self._running
        assert cycle is not None
        try:
            await self._application(scope, receive, _until_the_end(cycle) if scope["http_version"] == "1.0" else send)
        finally:
            self._watch_unread()
        if cycle.response_started and not cycle.response_complete and not cycle.disconnected:
            cycle.disconnected = True  # given up by its route: a slow reader gets no more, what waits for it goes
            cut_off(self.transport)

    def _watch_unread(self) -> None:
        if self._unread is not None:
            self._unread.watch()

    def _start_waiting(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(PATIENCE_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self.flow.read_paused or self._held or self._is_answering():  # then it waits for us
            self._start_waiting()
        else:
            self.transport.close()
            self._watch_unread()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer and close; without an answer where it would land in the middle of another one."""
        cycle = self._running
        if not self.pipeline and (cycle is None or cycle.response_complete or not cycle.response_started):
            body = msgspec.json.encode({"error": message, "error_type": "validation"})
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
        self.transport.close()
        self._watch_unread()


def _until_the_end(cycle: RequestResponseCycle) -> Any:
    """`send` for a client of HTTP/1.0, which knows no chunks: a body of unknown length ends with the connection."""
    unbounded = False

    async def send(message: Any) -> None:
        nonlocal unbounded
        if message["type"] == "http.response.start":
            unbounded = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
            if unbounded:
                cycle.chunked_encoding = False
        elif unbounded:
            cycle.expected_content_length = len(message.get("body", b""))
        await cycle.send(message)

    return send
