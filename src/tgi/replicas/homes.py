"""Where conversations live: a few replicas each, the same for every router that has the same list of replicas.

Rendezvous hashing: each replica gets a number for each conversation, and the highest ones win. When a replica comes
or goes only its own conversations move. Names are hashed, not numbers, so that the order of a list does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xxhash

_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


COUNT = 3
"""Homes of a conversation where there are as many replicas."""


class Homes:
    """Numbers of replicas and their names."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._seeds = np.array([_seed(name) for name in names], np.uint64)

    def grow(self, replicas: int) -> None:
        """Make room for more numbers, which have no names yet."""
        self._seeds = np.pad(self._seeds, (0, replicas - len(self._seeds)))

    def name(self, replica: int, name: str) -> None:
        """Who has the number from now on."""
        self._seeds[replica] = _seed(name)

    def of(self, key: int, allowed: np.ndarray) -> list[int]:
        """Numbers of the best replicas for the conversation, the best first; allowed: bool, one a replica."""
        mixed = (self._seeds ^ np.uint64(key)) * _MIX
        mixed ^= mixed >> _SHIFT
        mixed *= self._seeds
        mixed ^= mixed >> _SHIFT
        mixed[~allowed] = 0
        best = list[int]()
        for _ in range(COUNT):
            number = int(mixed.argmax())
            if not mixed[number]:
                break
            best.append(number)
            mixed[number] = 0
        return best


def _seed(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode()) | 1
