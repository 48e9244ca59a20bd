"""When those that were refused should come back: `Retry-After`.

Owns what is known of how long permits are held, and the list of those who were told a time. Each is told another one,
behind those who were refused before: when it comes back, a permit should be free for it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from statistics import fmean

SHORTEST_S, LONGEST_S = 0.5, 59.0
"""Clients take a longer time than a minute for a mistake, and then come back when they like."""
FIRST_GUESS_S = 4.0
"""How long a permit is held, while none has come back: two retries must outlast the first answers."""
REMEMBERED = 64
"""Permits whose time counts."""
SHARING = 0.5
"""A permit is held longer where more are out: by this power of their number, between not at all and as many times."""
LATER = 3
"""Where nothing ended when it should have, it may take so many times as long again: clients come back only twice."""
GOLDEN = 0.618034
"""Multiples of it spread evenly between 0 and 1, however many there are."""


class RetryTimes:
    """Times to come back for one number of permits."""

    def __init__(
        self,
        limit: int,
        clock: Callable[[], float] = time.monotonic,
        next_end: Callable[[], float | None] = lambda: None,
    ) -> None:
        """next_end: seconds after which the engine will have ended one of its requests at the latest, if known."""
        self._limit = limit
        self._clock = clock
        self._next_end = next_end
        self._durations: deque[float] = deque(maxlen=REMEMBERED)  # as they would be with all permits out
        self._last_end = clock()
        self._promised: list[float] = []  # heap of the times told, one for each permit wanted
        self._refused = 0

    def ended(self, seconds: float, count: int, taken: int) -> None:
        """`count` permits came back that were held so long, while `taken` were out."""
        full = seconds * (self._limit / taken) ** SHARING
        self._durations.extend([full] * min(count, REMEMBERED))
        self._last_end = self._clock()

    def tell(self, count: int, oldest: float, waiting: int) -> float:
        """Seconds until `count` permits should be free for one who is refused now, and remember it.

        oldest: when the permit that is out longest was taken. waiting: permits wanted by those in the line.
        """
        now = self._clock()
        while self._promised and self._promised[0] <= now:
            heappop(self._promised)
        held = fmean(self._durations) if self._durations else None
        first = self._first_end(now, oldest, held)
        each = (max(first + now - oldest, FIRST_GUESS_S) if held is None else held) / self._limit
        wait = max(first, SHORTEST_S) + (waiting + len(self._promised) + count - 1) * each
        self._refused += 1
        if wait > LONGEST_S:
            least = min(max(first, LONGEST_S / 2), LONGEST_S)
            wait = least + (LONGEST_S - least) * (self._refused * GOLDEN % 1)
        for _ in range(min(count, self._limit)):
            heappush(self._promised, now + wait)
        return wait

    def _first_end(self, now: float, oldest: float, held: float | None) -> float:
        """Seconds until the next permit comes back."""
        latest = self._next_end()
        if held is None:  # too late is better than too early: clients come back only so often
            return max(FIRST_GUESS_S, now - oldest) if latest is None else latest
        if now - oldest < held:
            guess = held - (now - oldest)
        else:  # any moment; but the longer nothing came, the longer it may take
            guess = max(held / self._limit, LATER * (now - max(self._last_end, oldest)))
        return guess if latest is None else min(guess, latest)
