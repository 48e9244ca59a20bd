"""Signs of life of the engine process: a datagram now and then, from a thread that no step holds up.

Its silence means that the process does not run at all (stopped, swapped out, its machine asleep), whatever it was
computing; that steps end is seen by their outputs. Owns the socket beside the engine's and its two ends; what silence
leads to is decided by `serving.engine_client`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

BEAT_S = 0.5
OVERDUE_S = 5.0
"""Silence that is no longer a busy machine's."""


def path_of(address: str) -> str:
    """Where the signs of life arrive for an engine that talks over `address` (ipc://...)."""
    return address.removeprefix("ipc://") + ".alive"


def start_beating(address: str) -> None:
    """The engine's end: beat for as long as the process lives."""
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.setblocking(False)

    def beat() -> None:
        while True:
            with contextlib.suppress(OSError):  # nobody there any more, or nobody has listened for long
                sender.sendto(b".", path_of(address))
            time.sleep(BEAT_S)

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()


class Pulse:
    """The API process's end: how long the engine has been silent, by what `feel` finds each `BEAT_S`."""

    def __init__(self, address: str) -> None:
        self._path = Path(path_of(address))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(self._path))
        self._known = False
        self._silent_s = 0.0

    def feel(self) -> float:
        """Seconds of silence; 0 for an engine that has never beaten.

        A call counts for `BEAT_S` however late it is: a pause of this process is not the engine's silence.
        """
        self._silent_s += BEAT_S
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(16):
                self._known, self._silent_s = True, 0.0
        return self._silent_s if self._known else 0.0

    def close(self) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)
