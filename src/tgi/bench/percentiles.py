"""Percentiles: by interpolation, as numpy's default, and TGI's way for its own tables."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Between the two nearest elements of a sorted sequence (Hyndman and Fan's type 7); NaN of none."""
    if not ordered:
        return math.nan
    place = (len(ordered) - 1) * percent / 100
    low = min(int(place), len(ordered) - 1)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def element(ordered: Sequence[float], percent: int) -> float:
    """The element at floor(percent * n / 100) of a sorted sequence, TGI's percentile; NaN of none."""
    return ordered[percent * len(ordered) // 100] if ordered else math.nan
