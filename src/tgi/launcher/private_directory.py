"""Directories of one process, such as the one for the engine's socket: short, this user's alone, and never left over.

Owns where they are made, and that the next start removes those of processes that were killed: each holds a file that
its process has locked for as long as it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tgi.errors import StartupError

logger = logging.getLogger(__name__)

PREFIX = "tgi-"
OWNER = "owner.lock"
SOCKET_PATH_BYTES = 107
"""Longest path of a socket, of the operating system's 108 bytes with their end."""
SOCKET_NAME_BYTES = len("/tgi-12345678/engine.sock.alive")
FALLBACKS = ("/tmp", "/var/tmp", "/dev/shm")
"""Where TMPDIR is too long for a socket or cannot be written to."""


@contextlib.contextmanager
def private_directory(variables: Mapping[str, str]) -> Iterator[Path]:
    """A directory whose files may be sockets and that only this user can enter (mode 0700).

    Raises StartupError when there is no place for one.
    """
    for place in places(variables):
        clear(place)
        with contextlib.suppress(OSError):
            directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
            break
    else:
        raise StartupError(
            "there is no place for the engine's socket: set TMPDIR to a directory that can be written to, with a path "
            f"of at most {SOCKET_PATH_BYTES - SOCKET_NAME_BYTES} bytes"
        )
    owner = _lock(directory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(owner)


def places(variables: Mapping[str, str]) -> list[str]:
    """Where a socket can be, best first: the temporary directory, else others with short names."""
    wanted = [variables.get(name, "") for name in ("TMPDIR", "TEMP", "TMP", "XDG_RUNTIME_DIR")]
    found = [os.path.abspath(place) for place in (*wanted, *FALLBACKS) if place]  # noqa: PTH100 - keeps links as they are
    short = [place for place in found if len(os.fsencode(place)) + SOCKET_NAME_BYTES <= SOCKET_PATH_BYTES]
    return list(dict.fromkeys(short))


def clear(place: str) -> None:
    """Remove directories of this user whose process is gone without having removed them."""
    with contextlib.suppress(OSError):
        for directory in Path(place).glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                _clear(directory)


def _lock(directory: Path) -> int:
    """Mark the directory as this process's; gives the descriptor that holds the lock."""
    # The file gets its name when it is locked: nobody finds it unlocked in between.
    unnamed = directory / f"{OWNER}.new"
    owner = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    fcntl.flock(owner, fcntl.LOCK_EX)
    unnamed.rename(directory / OWNER)
    return owner


def _clear(directory: Path) -> None:
    facts = directory.lstat()
    if facts.st_uid != os.geteuid() or directory.is_symlink():
        return
    owner = os.open(directory / OWNER, os.O_RDWR | os.O_NOFOLLOW)  # raises where the directory is not one of ours
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while its process lives
        logger.info("Removing %s, which a process that was killed has left", directory)
        shutil.rmtree(directory)
    finally:
        os.close(owner)
