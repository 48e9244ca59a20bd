"""Who gets a place in the batch, when several groups (API keys) want more places than there are.

Free places go to the groups that have the fewest. A group that has none gets one at once: the group with the most
gives one back, if it has at least two. So no group's first request waits for another group's to end.
Pure functions. Imports no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence as ListLike

from tgi.engine.sequence import Sequence


def places(running: Iterable[Sequence], waiting: Iterable[Sequence], size: int) -> Counter[int]:
    """Group -> how many of its waiting sequences may join a batch of `size` sequences."""
    held = Counter(sequence.group for sequence in running)
    wanted = Counter(sequence.group for sequence in waiting)
    granted: Counter[int] = Counter()
    free = size - held.total()
    while free > 0 and (hungry := [group for group in wanted if wanted[group] > granted[group]]):
        granted[min(hungry, key=lambda group: held[group] + granted[group])] += 1
        free -= 1
    givers = sum(count - 1 for count in held.values())
    for group in wanted:
        if not held[group] and not granted[group] and givers:
            granted[group] = 1
            givers -= 1
    return granted


def giver(running: ListLike[Sequence]) -> Sequence | None:
    """Who gives its place to a group that has none: the youngest of the group with the most, if it has two.

    running: by admission, oldest first. The oldest of all never gives, so it always advances.
    """
    held = Counter(sequence.group for sequence in running)
    group, count = max(held.items(), key=lambda item: item[1], default=(0, 0))
    if count < 2:
        return None
    return next(sequence for sequence in reversed(running) if sequence.group == group)
