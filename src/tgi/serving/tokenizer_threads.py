"""Threads that tokenise or wait for a chat template: texts of ordinary length never wait behind long ones.

Owns the two queues. A text of two megabytes takes seconds and some hundred megabytes, and cannot be
interrupted: so few of them run at once, and of those that wait nobody's is begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

LONG_TEXT = 131_072
"""Characters (or ids) from which on a text is long; tokenising less takes some 100 ms."""

Result = TypeVar("Result")


class TokenizerThreads:
    """`workers` threads for ordinary texts, and a quarter as many, at least one, for long ones."""

    def __init__(self, workers: int) -> None:
        self._ordinary = ThreadPoolExecutor(workers, thread_name_prefix="tokenize")
        self._long = ThreadPoolExecutor(max(workers // 4, 1), thread_name_prefix="tokenize-long")
        self._single = ThreadPoolExecutor(1, thread_name_prefix="pieces")

    async def run(self, length: int, function: Callable[[], Result]) -> Result:
        """The function's result, for a text of that length. Cancelling ends it if it has not begun."""
        pool = self._long if length >= LONG_TEXT else self._ordinary
        return await asyncio.get_running_loop().run_in_executor(pool, function)

    async def in_turn(self, function: Callable[[], Result]) -> Result:
        """For Python code: one piece at a time, since threads that compete with it hold up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._single, function)

    def close(self) -> None:
        for pool in (self._ordinary, self._long, self._single):
            pool.shutdown(wait=False, cancel_futures=True)
