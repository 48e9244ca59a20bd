"""Reading what strangers wrote: files that need not be files, JSON of any depth, names for messages. No torch."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from tgi.errors import ModelError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_POINTER_BYTES = 1024
"""No pointer is longer."""
LONGEST_SHOWN = 200


def printable(text: object, longest: int = LONGEST_SHOWN) -> str:
    """Text for a message or the log: control characters and lone surrogates escaped, cut to `longest` characters."""
    whole = str(text)
    if len(whole) <= longest and whole.isprintable():
        return whole
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in whole[:longest])
    return shown if len(whole) <= longest else f"{shown}..."


def check_file(path: Path) -> None:
    """Refuse what would block, never end, or stand in for a file. Raises ModelError; a missing file is one, too."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise ModelError(
                f"{printable(path)} is {_kind(facts.st_mode)}, not a regular file: put the file itself there"
            )
        if facts.st_size <= LFS_POINTER_BYTES and path.read_bytes().startswith(LFS_POINTER):
            raise ModelError(
                f"{printable(path)} is a Git LFS pointer, not the file itself: run `git lfs pull` in its directory"
            )
    except OSError as error:
        raise ModelError(f"{printable(path)} cannot be read: {error.strerror or error}") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises ModelError, also for a file that is none, and for more levels than can be read."""
    check_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{printable(path)} cannot be read: {error.strerror or error}") from error
    except RecursionError:
        raise ModelError(f"{printable(path)} cannot be read: its arrays and objects are nested too deeply") from None
    except ValueError as error:
        raise ModelError(f"{printable(path)} is not valid JSON: {printable(error)}") from None


def _kind(mode: int) -> str:
    kinds = {"a directory": stat.S_ISDIR, "a named pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK}
    kinds |= {"a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode)}
    return next((name for name, matches in kinds.items() if matches(mode)), "special")
