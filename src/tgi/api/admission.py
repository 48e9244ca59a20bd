"""Permits: how many generations may be open at once, and what is said to those beyond.

Owns the count, the refusal with `Retry-After` from the measured drain rate, and the end of
admission when the server drains. Nobody waits for a permit. Used by `call`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

from tgi.errors import OverloadedError, ShuttingDownError

WINDOW_S = 30.0
LONGEST_RETRY_S = 60


class Permits:
    """At most `limit` permits are out; taking is immediate or an error."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.taken = 0
        self.draining = False
        self._clock = clock
        self._busy_since = clock()
        self._given_back: deque[float] = deque(maxlen=256)
        self._empty = asyncio.Event()
        self._empty.set()

    def check(self, count: int = 1) -> None:
        """Refuse early what `take` would refuse: costs nothing, so it is done before a body is read."""
        if self.draining:
            error = ShuttingDownError()
            error.headers["connection"] = "close"
            raise error
        if self.taken + count > self.limit:
            overloaded = OverloadedError()
            overloaded.headers["retry-after"] = str(self.retry_after(count))
            raise overloaded

    def take(self, count: int) -> None:
        """All of `count` permits, or `OverloadedError`."""
        self.check(count)
        if not self.taken:
            self._busy_since = self._clock()
        self.taken += count
        self._empty.clear()

    def give_back(self, count: int) -> None:
        self.taken -= count
        assert self.taken >= 0
        self._given_back.extend([self._clock()] * min(count, 256))
        if not self.taken:
            self._empty.set()

    def retry_after(self, count: int = 1) -> int:
        """Seconds until `count` permits come free at the rate of the last half minute; 1 to 60."""
        now = self._clock()
        while self._given_back and self._given_back[0] < now - WINDOW_S:
            self._given_back.popleft()
        if not self._given_back:  # nothing has ended yet: it takes at least as long as it took so far
            wait = now - self._busy_since
        else:
            wait = count * (now - self._given_back[0]) / len(self._given_back)
        return min(max(math.ceil(wait), 1), LONGEST_RETRY_S)

    async def drained(self) -> None:
        """Returns when no permit is out."""
        await self._empty.wait()
