"""Who holds how many of a number of places, and who may have more.

Owns the rule that keeps a part of all places for groups (API keys) that hold few, so that the first requests of one
find a place however many another sends.
"""

from __future__ import annotations

from collections import Counter

KEPT_PART = 4
"""One place in this many is kept for groups that hold few, where there are several groups."""


class Shares:
    """Places held by groups."""

    def __init__(self, limit: int, groups: int = 1) -> None:
        self.limit = limit
        self._kept = max(limit // KEPT_PART, min(limit - 1, 1), 0) if groups > 1 else 0
        self._own = max(self._kept // (groups - 1), 1) if self._kept else 0
        """How many of the kept places each group may have."""
        self.held: Counter[int] = Counter()
        self.total = 0

    @property
    def largest(self) -> int:
        """So many places one request can have when nobody else is there."""
        return self.limit - self._kept

    def is_own(self, group: int, count: int) -> bool:
        """Whether they are of those kept for the group."""
        return self.held[group] + count <= self._own

    def allows(self, group: int, count: int) -> bool:
        free = self.limit - self.total
        if count > free:
            return False
        if not self._kept or self.is_own(group, count):
            return True
        used = sum(min(held, self._own) for other, held in self.held.items() if other != group)
        return free - count >= self._kept - used

    def take(self, group: int, count: int) -> None:
        self.held[group] += count
        self.total += count

    def give_back(self, group: int, count: int) -> None:
        self.held[group] -= count
        self.total -= count
        assert self.held[group] >= 0
        if not self.held[group]:
            del self.held[group]
