"""Work that needs torch, done in a child process: a task as JSON on its stdin, lines of JSON on its stdout.

The parent has no torch and shows how far the work is. The last line is the result, or `Failed`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from tgi import children
from tgi.errors import StartupError

Result = TypeVar("Result")


class Failed(msgspec.Struct, tag="failed"):
    """Why there is no result."""

    error: str


def say(line: msgspec.Struct) -> None:
    """The child: one line to the parent."""
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


def result_of(
    what: str, command: list[str], task: Any, line: Any, result: type[Result], hear: Callable[[Any], None]
) -> Result:
    """The parent: start `command` (see `children.python`), give it the task, and wait for its result.

    what: the work, for messages ("the verification"). task: what msgspec can write. line: the type of all lines, each
    of which `hear` gets. Raises StartupError with the child's reason, or with how it ended without one.
    """
    found, failure = None, ""
    with children.started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(msgspec.json.encode(task))
        child.stdin.close()
        for text in child.stdout:
            one = msgspec.json.decode(text, type=line)
            hear(one)
            if isinstance(one, result):
                found = one
            elif isinstance(one, Failed):
                failure = one.error
    if found is None:
        status = child.returncode
        how = f"died of signal {-status}" if status < 0 else f"ended with status {status}"
        raise StartupError(failure or f"{what} {how}; its last words are above")
    return found
