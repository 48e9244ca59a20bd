"""Ports for what Ray starts beside us: chosen now, bound some seconds later by another process."""

from __future__ import annotations

import contextlib
import random
import socket

FIRST, LAST = 20_000, 29_999
"""Below those that the system gives to connections, above those of Ray's workers, and not those of Serve's replicas."""


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on, on any address; from a range that nobody else draws from by himself.

    Raises OSError where there are not so many.
    """
    found: list[int] = []
    for port in random.sample(range(FIRST, LAST + 1), LAST + 1 - FIRST):
        if len(found) == count:
            return found
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("", port))
            found.append(port)
    raise OSError(f"there are not {count} free ports from {FIRST} to {LAST}")
