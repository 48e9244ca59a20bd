"""Answers that nobody reads: a connection whose client takes too little of what waits for it is cut off.

Owns the clock of one connection's write buffer. An event stream has its own (`api.streaming`), since it also
holds a permit; this one holds for what is left when an answer was handed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

WRITE_TIMEOUT_S = 60.0
MINIMUM_RATE = 1024
"""Bytes a second that a client must take, on average over `WRITE_TIMEOUT_S`, while more wait for it."""


class UnreadAnswer:
    """Looks at a transport's buffer while there is something in it."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """To be called whenever bytes may be left in the buffer; costs nothing when there are none."""
        waiting = self._transport.get_write_buffer_size()
        if waiting and self._timer is None:
            self._timer = self._loop.call_later(WRITE_TIMEOUT_S, self._look, waiting)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, before: int) -> None:
        self._timer = None
        waiting = self._transport.get_write_buffer_size()
        # One that has grown got another answer meanwhile, which is written only when the last one was nearly taken.
        if waiting and waiting <= before and before - waiting < WRITE_TIMEOUT_S * MINIMUM_RATE:
            cut_off(self._transport)
        else:
            self.watch()


def cut_off(transport: asyncio.Transport) -> None:
    """Close at once, by a reset: `close` would wait for the reader, and the system keep what it has of an answer."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
