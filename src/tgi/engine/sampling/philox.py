"""Uniform random numbers as a pure function of (seed, position).

Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): the seed is the
key, the position in the sequence the counter. There is no state to keep, copy or lose, so a seeded
request draws the same numbers alone, in any batch, after a preemption and on every device. Runs on
the host in numpy.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(counter: npt.NDArray[np.uint64], key: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Philox-4x32-10 of `counter` [4, n] under `key` [2, n]: 32-bit words held in uint64, result [4, n]."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0 = c0 * np.uint64(_MULTIPLIERS[0])  # two 32-bit words: never overflows 64 bits
        product1 = c2 * np.uint64(_MULTIPLIERS[1])
        c0, c1, c2, c3 = (
            (product1 >> _HALF) ^ c1 ^ k0,
            product1 & _LOW,
            (product0 >> _HALF) ^ c3 ^ k1,
            product0 & _LOW,
        )
        k0 = (k0 + np.uint64(_KEY_STEPS[0])) & _LOW
        k1 = (k1 + np.uint64(_KEY_STEPS[1])) & _LOW
    return np.stack([c0, c1, c2, c3])


def uniforms(seeds: Iterable[int], positions: Iterable[int]) -> npt.NDArray[np.float64]:
    """One number in [0, 1) with 53 random bits for each (seed, position); both are taken modulo 2**64."""
    seed = np.array([value & 0xFFFFFFFFFFFFFFFF for value in seeds], dtype=np.uint64)
    position = np.array([value & 0xFFFFFFFFFFFFFFFF for value in positions], dtype=np.uint64)
    zero = np.zeros_like(position)
    words = philox(
        np.stack([position & _LOW, position >> _HALF, zero, zero]),
        np.stack([seed & _LOW, seed >> _HALF]),
    )
    high = (words[0] >> np.uint64(5)).astype(np.float64)  # 27 bits
    low = (words[1] >> np.uint64(6)).astype(np.float64)  # 26 bits
    return (high * 2.0**26 + low) * 2.0**-53
