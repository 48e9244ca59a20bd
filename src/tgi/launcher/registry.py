"""Which servers of this user run on this machine: one small file each, in a directory that only he can enter.

Owns where the files are, and that a file of a process that is gone does not count and is removed: each is locked by its
process for as long as it lives. Nothing here may keep a server from starting.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

logger = logging.getLogger(__name__)

FOLDER = "tgi-servers"
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses to listen on -> those to connect to."""


class Running(msgspec.Struct, frozen=True):
    """A server, as its file tells."""

    pid: int
    model: str
    host: str
    port: int
    started: float
    """Seconds since 1970."""
    key: bool = False
    """Requests need an API key."""

    @property
    def url(self) -> str:
        host = ANY.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


@contextlib.contextmanager
def registered(model: str, sock: socket.socket, *, key: bool, variables: Mapping[str, str]) -> Iterator[None]:
    """Within the block this process is listed as the server that has the bound socket."""
    host, port = sock.getsockname()[:2]
    path = None
    with contextlib.ExitStack() as stack:
        try:
            path = _write(Running(os.getpid(), model, host, port, time.time(), key), variables, stack)
        except OSError as error:
            logger.debug("This server is not listed for `tgi ps`: %s", error)
        try:
            yield
        finally:
            if path is not None:
                path.unlink(missing_ok=True)


def running(variables: Mapping[str, str]) -> list[Running]:
    """All servers of this user, the latest first; files of processes that are gone are removed."""
    found: dict[int, Running] = {}
    for place in places(variables):
        with contextlib.suppress(OSError):
            for path in place.glob("*.json"):
                if (one := _read(path)) is not None:
                    found[one.pid] = one
    return sorted(found.values(), key=lambda one: -one.started)


def places(variables: Mapping[str, str]) -> list[Path]:
    """Where files are, best first: the directory that ends with the session, else the one for caches."""
    found = [Path(runtime, FOLDER)] if (runtime := variables.get("XDG_RUNTIME_DIR")) else []
    cache = variables.get("XDG_CACHE_HOME") or (f"{home}/.cache" if (home := variables.get("HOME")) else None)
    return [*found, Path(cache, FOLDER)] if cache else found


def _write(server: Running, variables: Mapping[str, str], stack: contextlib.ExitStack) -> Path:
    """Make the file and lock it until the stack is left. Raises OSError where no place can be written to."""
    problem = OSError("neither XDG_RUNTIME_DIR nor HOME is set")
    for place in places(variables):
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _private(place):
                raise PermissionError(f"{place} can be entered by others")
            # The file gets its name when it is locked: nobody finds it unlocked in between.
            unnamed = place / f".{server.pid}.new"
            descriptor = os.open(unnamed, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_NOFOLLOW, 0o600)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(descriptor, msgspec.json.encode(server))
            return unnamed.rename(place / f"{server.pid}.json")
        except OSError as error:
            problem = error
    raise problem


def _private(place: Path) -> bool:
    facts = place.lstat()
    return facts.st_uid == os.geteuid() and facts.st_mode & 0o077 == 0 and not place.is_symlink()


def _read(path: Path) -> Running | None:
    """The server of a file; None when it is gone, or the file is none of ours."""
    with contextlib.ExitStack() as stack:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            stack.callback(os.close, descriptor)
            server = msgspec.json.decode(os.read(descriptor, 1 << 16), type=Running)
        except (OSError, msgspec.MsgspecError):
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return server  # its process has it locked: it lives
        path.unlink(missing_ok=True)
        return None
