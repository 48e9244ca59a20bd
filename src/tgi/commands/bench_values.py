"""Values on the command lines of the two benchmark commands, and the event loop they run in."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tgi.bench.prompts import Lengths
from tgi.settings.parse import UsageError

Result = TypeVar("Result")


def run_loop(work: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def listed(words: str, name: str, convert: Callable[[str], Result]) -> list[Result]:
    """The values of a comma list."""
    try:
        return [convert(word.strip()) for word in words.split(",")]
    except ValueError:
        raise UsageError(f"invalid value '{words}' for '{name}': positive numbers such as 1,4,8 are needed") from None


def whole(word: str) -> int:
    if not word.isascii() or not word.isdigit() or not 1 <= len(word) <= 6 or int(word) < 1:
        raise ValueError
    return int(word)


def rate(word: str) -> float:
    value = float(word)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def lengths(word: str, name: str) -> Lengths:
    try:
        return Lengths.parse(word)
    except ValueError as error:
        raise UsageError(f"invalid value '{word}' for '{name}': {error}") from None


def positive(value: float | None, name: str) -> None:
    if value is not None and not 0 < value < math.inf:
        raise UsageError(f"invalid value '{value:g}' for '{name}': a number above 0 is needed")
