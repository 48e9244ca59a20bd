"""A child process that does one kind of work, and can be killed: its start, its first frame, its end.

Owns nothing of what it is asked. Calls block, so they belong in threads. Used by `template_helper` and `long_texts`.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
import weakref

from tgi import children
from tgi.serving.frames import READY, receive, send
from tgi.settings.config import read_environment

START_S = 60.0
"""For a process to start, on a busy machine."""
PASSED_VARIABLES = ("PATH", "HOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_", "TZ", "PYTHON")
"""What the process gets of the environment, by beginnings of names: the rest may hold keys."""


class HelperError(Exception):
    """The process cannot be started; the message says which."""


class HelperProcess:
    """The child and the socket to it, for one thread at a time. It ends with this object at the latest."""

    def __init__(self, module: str, purpose: str, begin: bytes) -> None:
        """Start it without waiting. module: what it runs, and does ("renders ..."); begin: its first frame.

        Raises HelperError when that is not possible.
        """
        self._begin: bytes | None = begin
        self._what = f"the process that {purpose}"
        ours, theirs = socket.socketpair()
        variables = read_environment()
        variables = {name: variables[name] for name in variables if name.startswith(PASSED_VARIABLES)}
        try:
            self._child = subprocess.Popen(
                children.python(module),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=variables,
                start_new_session=True,  # Ctrl-C in a terminal reaches the launcher alone
            )
        except OSError as error:
            ours.close()
            raise HelperError(f"{self._what} cannot be started: {error}") from None
        finally:
            theirs.close()
        self._socket = ours
        self._end = weakref.finalize(self, _end, self._child, ours)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def ask(self, data: bytes, seconds: float, most: int) -> tuple[bytes, bytes]:
        """First byte of the answer and the rest, `most` bytes together.

        Raises HelperError when it does not start, TimeoutError, and OSError or ValueError when it died.
        """
        if self._begin is not None:
            self._wait_ready(self._begin)
            self._begin = None
        deadline = time.monotonic() + seconds
        self._socket.settimeout(seconds)
        send(self._socket, data)
        answer = receive(self._socket, deadline=deadline, most=most)
        if not answer:
            raise ConnectionError
        return bytes(answer[:1]), bytes(memoryview(answer)[1:])

    def _wait_ready(self, begin: bytes) -> None:
        try:
            self._socket.settimeout(START_S)
            send(self._socket, begin)
            answer = receive(self._socket, deadline=time.monotonic() + START_S, most=len(READY))
        except (OSError, ValueError):
            answer = None
        if answer != READY:
            raise HelperError(f"{self._what} does not start ({self.end()})")

    def end(self) -> str:
        """Kill it, if it runs; how it ended, in words."""
        self._end()
        status = self._child.returncode
        if status is not None and status < 0:
            return signal.Signals(-status).name
        return f"status {status}"


def _end(child: subprocess.Popen[bytes], connection: socket.socket) -> None:
    child.kill()
    child.wait()
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # not closed, since a thread may wait for it
