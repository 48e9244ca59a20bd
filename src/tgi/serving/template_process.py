"""The process that renders chat templates, where they can be stopped:

    python -P -m tgi.serving.template_process < SOCKET

Templates come with models and are foreign code, which can take all time and memory. This process holds no
secret, may take so much memory and no more, and is killed by the kernel when a task takes too long or
its parent is gone. Owns those limits and the loop of tasks; started by `template_helper`.

The parent sends marshalled values in frames: first (sources, special_tokens), then tasks: ("probe", seconds,
{"name": ...}), or ("render", seconds, arguments of `Renderer.render`) followed by lists of messages. Marshal takes all
that JSON has, large numbers and lone surrogates included, and is as safe as the parent, which is trusted; the way
back is text behind one byte that says what it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import marshal
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tgi.errors import TemplateError
from tgi.serving.frames import EXHAUSTED, FAILED, READY, TEXT, receive, send
from tgi.serving.template_probe import probe
from tgi.serving.template_render import Renderer
from tgi.serving.template_wants import Wants

MAX_MEMORY = 512 << 20
"""Bytes that a task may take beside its own size."""
MEMORY_OF_A_BYTE = 32
"""Bytes that one byte of a task may take as a Python object, and again in the prompt."""
GRACE_S = 1.0
"""The parent kills this process in time; for a parent that cannot, the kernel does so much later."""


def main() -> int:
    """Serve tasks until the socket closes."""
    connection = socket.socket(fileno=os.dup(0))
    _give_up_rights()
    memory = _Memory()
    first = receive(connection)
    if first is None:
        return 0
    renderer = Renderer(*marshal.loads(first))
    send(connection, READY)
    while (data := receive(connection)) is not None:
        memory.allow(len(data))
        kind, text = _answer(connection, renderer, data)
        send(connection, kind + text.encode("utf-8", "surrogatepass"))
        if kind == EXHAUSTED:
            return 0  # a process that ran out of memory is not trusted with another task
    return 0


def _answer(connection: socket.socket, renderer: Renderer, data: bytearray) -> tuple[bytes, str]:
    try:
        stream = io.BytesIO(data)
        task, seconds, arguments = marshal.load(stream)
        messages: list[Any] = []
        while stream.tell() < len(data):
            messages.extend(marshal.load(stream))
        with _killed_after(connection, seconds + GRACE_S):
            return TEXT, _result(renderer, task, arguments, messages)
    except TemplateError as error:
        return FAILED, error.message
    except MemoryError:
        return EXHAUSTED, ""


def _result(renderer: Renderer, task: str, arguments: dict[str, Any], messages: list[Any]) -> str:
    if task == "probe":
        return json.dumps(probe(renderer, **arguments).plain())
    return renderer.render(messages=messages, **{**arguments, "wants": Wants.of(arguments["wants"])})


@contextlib.contextmanager
def _killed_after(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Within, the kernel ends this process after `seconds`, or when the other side of the socket is closed.

    By signals that nothing handles, since a handler of Python's would wait for the end of an operation,
    and one operation can be the whole trouble.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)
    flags = fcntl.fcntl(connection, fcntl.F_GETFL)
    with contextlib.suppress(OSError):  # where there is none, the time limit ends an orphan
        fcntl.fcntl(connection, fcntl.F_SETFL, flags | os.O_ASYNC)  # SIGIO: the parent is silent during a task
    try:
        with contextlib.suppress(BlockingIOError):
            if not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                sys.exit(0)  # it was closed before the signal was asked for
        yield
    finally:
        fcntl.fcntl(connection, fcntl.F_SETFL, flags)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _give_up_rights() -> None:
    """No core files, no files written, no processes started: more than the sandbox needs, in case it has a hole."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (0, 0))


class _Memory:
    """The limit of this process's address space, which grows with the size of a task."""

    def __init__(self) -> None:
        self._own = _address_space()
        self._hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        self.allow(0)

    def allow(self, size: int) -> None:
        wanted = self._own + MAX_MEMORY + size * MEMORY_OF_A_BYTE
        if self._hard != resource.RLIM_INFINITY:
            wanted = min(wanted, self._hard)
        resource.setrlimit(resource.RLIMIT_AS, (wanted, self._hard))


def _address_space() -> int:
    """Bytes of address space now; a guess where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 30


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError):
        sys.exit(main())
