"""One line in the log every few seconds, while there is work: what runs, what waits, how fast, and how full.

    Running 3, queued 0, 152.4 tokens/s generated, 80.0 tokens/s of prompts, cache 12 % in use

An idle server says nothing. Counts what the engine reports of its steps.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from tgi.messages import StepStats

logger = logging.getLogger(__name__)


class StatusLine:
    """Give it every step's statistics (`observe`) and have it run beside the server."""

    def __init__(self, num_blocks: int, waiting: Callable[[], int]) -> None:
        """`waiting`: requests in line now, those that the engine has not seen among them."""
        self._blocks, self._waiting = num_blocks, waiting
        self._last = StepStats()
        self._prompt_tokens = self._new_tokens = 0
        self._since = time.monotonic()

    def observe(self, stats: StepStats) -> None:
        self._last = stats
        self._prompt_tokens += stats.scheduled_prefill_tokens
        self._new_tokens += stats.scheduled_decode_tokens

    async def run(self, interval_s: float) -> None:
        """Write the line at each interval, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            if (line := self.line(time.monotonic())) is not None:
                logger.info("%s", line)

    def line(self, now: float) -> str | None:
        """What happened since the last call; None when nothing did and nothing waits."""
        seconds, self._since = max(now - self._since, 1e-9), now
        prompts, new = self._prompt_tokens, self._new_tokens
        self._prompt_tokens = self._new_tokens = 0
        waiting = self._waiting()
        if not (prompts or new or waiting or self._last.running):
            return None
        parts = [f"Running {self._last.running}", f"queued {waiting}", f"{new / seconds:.1f} tokens/s generated"]
        if prompts:
            parts.append(f"{prompts / seconds:.1f} tokens/s of prompts")
        if self._blocks:
            used = 1 - self._last.free_blocks / self._blocks
            parts.append(f"cache {100 * used:.0f} % in use")
        return ", ".join(parts)
