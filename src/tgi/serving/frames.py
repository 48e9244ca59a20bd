"""Frames between this process and its helpers: a length of 8 bytes, then the content.

Owns nothing but the framing; what the content means is said in `template_process` and `tokenizer_process`.
"""

from __future__ import annotations

import socket
import struct
import time

READY, TEXT, FAILED, EXHAUSTED = b"R", b"T", b"F", b"X"
"""First byte of an answer: the process is ready; the result; why it failed; memory ran out."""
_LENGTH = struct.Struct("!Q")


def send(connection: socket.socket, content: bytes) -> None:
    """Raises TimeoutError or another OSError."""
    connection.sendall(_LENGTH.pack(len(content)) + content)


def receive(connection: socket.socket, *, deadline: float | None = None, most: int | None = None) -> bytearray | None:
    """The next frame's content; None when the other side is gone.

    Raises TimeoutError at `deadline` (time.monotonic), another OSError, and ValueError for more than `most` bytes.
    """
    head = _exactly(connection, _LENGTH.size, deadline)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if most is not None and length > most:
        raise ValueError(f"a frame of {length} bytes")
    return _exactly(connection, length, deadline)


def _exactly(connection: socket.socket, count: int, deadline: float | None) -> bytearray | None:
    content = bytearray(count)
    view, filled = memoryview(content), 0
    while filled < count:
        if deadline is not None:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
        got = connection.recv_into(view[filled:])
        if not got:
            return None
        filled += got
    return content
