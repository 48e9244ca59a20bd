"""Time spans of overlapping streams: how long any lasts, when all do, how many tokens fall inside.

Pure arithmetic over (start, end) pairs in seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

Span = tuple[float, float]


def covered(spans: Iterable[Span]) -> float:
    """Length of the union."""
    total, end = 0.0, float("-inf")
    for low, high in sorted(spans):
        total += max(0.0, high - max(low, end))
        end = max(end, high)
    return total


def overlaps(spans: Iterable[Span], count: int) -> list[Span]:
    """Where exactly `count` spans overlap; spans are half open, [low, high)."""
    edges = sorted([(low, 1) for low, high in spans if high > low] + [(high, -1) for low, high in spans if high > low])
    found: list[Span] = []
    active = 0
    for place, (moment, change) in enumerate(edges):
        active += change
        following = edges[place + 1][0] if place + 1 < len(edges) else moment
        if active == count and following > moment:
            found.append((moment, following))
    return found


def tokens_within(times: Sequence[float], counts: Sequence[float], span: Span) -> float:
    """Tokens of a stream that belong to `span`.

    Those of a piece count as made evenly since the piece before: else a span that begins or ends between
    two streams' pieces of the same step would lose a step of one of them. Those of the first piece have
    no beginning and count as made at its moment, so they are in no span.
    """
    return _made(times, counts, span[1]) - _made(times, counts, span[0])


def _made(times: Sequence[float], counts: Sequence[float], moment: float) -> float:
    """Tokens after the first piece made until `moment`."""
    place = bisect_right(times, moment)
    if place == 0:
        return 0.0
    whole = sum(counts[1:place])
    if place == len(times):
        return whole
    part = (moment - times[place - 1]) / (times[place] - times[place - 1])
    return whole + part * counts[place]
