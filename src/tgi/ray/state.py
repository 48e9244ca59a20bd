"""Deployments of this user on this machine: a small file each, locked for as long as its process lives.

Owns the form of the file and where it is; as `launcher.registry` has it for servers, in the same private place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from tgi.errors import StartupError
from tgi.launcher.registry import places

LARGEST = 1 << 20


class State(msgspec.Struct):
    """What is told of a deployment."""

    pid: int
    name: str
    url: str
    started: float
    """Seconds since 1970."""
    ready: bool = False
    cluster: str = ""
    logs: str = ""
    replicas: list[dict[str, str | int]] = []


def directory(variables: Mapping[str, str]) -> Path:
    """Made if need be, for this user alone. Raises StartupError."""
    for place in places(variables):
        found = place.with_name("tgi-deployments")
        with contextlib.suppress(OSError):
            found.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = found.lstat()
            if facts.st_uid == os.geteuid() and not facts.st_mode & 0o077 and not found.is_symlink():
                return found
    raise StartupError("a deployment needs a place for its files: set HOME or XDG_RUNTIME_DIR to a directory of yours")


class StateFile:
    """The file of this process's own deployment."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, state: State) -> None:
        data = msgspec.json.encode(state)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)


@contextlib.contextmanager
def held(name: str, variables: Mapping[str, str]) -> Iterator[StateFile]:
    """Within the block the name is this process's. Raises StartupError where another one has it."""
    path = directory(variables) / f"{name}.json"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartupError(
                f"a deployment `{name}` runs already: end it with `tgi deploy down {name}`, or give another --name"
            ) from None
        yield StateFile(descriptor)
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def found(variables: Mapping[str, str]) -> list[State]:
    """Deployments whose process lives."""
    states = []
    for path in sorted(directory(variables).glob("*.json")):
        if (state := read(path)) is not None:
            states.append(state)
    return states


def read(path: Path) -> State | None:
    """None: its process is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # its process has it locked
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(os.pread(descriptor, LARGEST, 0), type=State)
        return State(0, path.stem, "", 0.0)
    finally:
        os.close(descriptor)
    return None
