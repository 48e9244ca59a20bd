"""A client that has ended its side of the connection: gone, or done with sending and waiting for its answer?

Both look the same, and only what is written to them tells: who is gone answers with a reset. Owns the wait
for it and the interim answers that provoke it while there is nothing else to write.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

FIRST_PROBE_S = 2.0
"""Most answers are there sooner and need no interim one before them."""
PROBE_EVERY_S = 15.0
MOST_PROBES = 4
"""Some clients (Go's) count interim answers and take five."""
LOOK_EVERY_S = 0.25
PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""An interim answer that every client skips, even where it did not expect one (RFC 9110, 15.2); Python's only this."""


class HalfClosed:
    """Watches one connection from the end of its input until it is lost, and aborts it when its client is gone."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, may_probe: Callable[[], bool]
    ) -> None:
        """`may_probe`: whether an interim answer can be written now."""
        self._transport = transport
        self._loop = loop
        self._may_probe = may_probe
        self._probes = 0
        self._next_probe = loop.time() + FIRST_PROBE_S
        self._timer = loop.call_later(LOOK_EVERY_S, self._look)

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        if self._was_reset():
            self._transport.abort()
            return
        now = self._loop.time()
        if now >= self._next_probe and self._probes < MOST_PROBES and self._may_probe():
            self._probes += 1
            self._next_probe = now + PROBE_EVERY_S
            self._transport.write(PROBE)
        self._timer = self._loop.call_later(LOOK_EVERY_S, self._look)

    def _was_reset(self) -> bool:
        """Asked of the socket, since the event loop does not look at one whose input has ended."""
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        return sock is not None and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
