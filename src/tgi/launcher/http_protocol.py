"""HTTP/1.1 as uvicorn speaks it, with bounds on what a client may send and how long it may take.

Owns the size of a head (and of trailers, which come the same way) and the patience with a request that
arrives slowly. llhttp bounds neither, and collects a header in time quadratic in its size: without a
bound one client stalls all others. The size of a body is the routes' affair. Used by `http_server`.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT = 65_536
"""Bytes that may come without a head, a piece of a body or a request being complete; one read more is let pass."""
PATIENCE_S = 60.0
"""For a whole head, counted from the start of the connection or of the request; and between two pieces of a body."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._pending = 0
        """Bytes since the parser last got anywhere."""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        super().data_received(data)
        if self._pending > HEAD_LIMIT and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"A head may have {HEAD_LIMIT} bytes")

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

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        self._start_waiting()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._pending = 0
        self._stop_waiting()
        super().on_message_complete()

    def _start_waiting(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(PATIENCE_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self.flow.read_paused:  # then it is us who do not read: an earlier request is not answered yet
            self._start_waiting()
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer and close; without an answer where it would land in the middle of another one."""
        cycle = self.cycle
        if not self.pipeline and (cycle is None or cycle.response_complete or not cycle.response_started):
            body = msgspec.json.encode({"error": message, "error_type": "validation"})
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
        self.transport.close()
