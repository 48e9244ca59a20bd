"""What a format of weights does to a model: the change of its perplexity, which speeds are shown beside.

Owns which formats may be compared: a format's rivals are those of the same or better quality. `QUALITY.json` keeps what
was measured, all on one model: SmolLM2-135M-Instruct, its weights with uniform noise of half a step added, so that they
lie on nobody's lattice; English text of 12,000 tokens; everything that a format rounds rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from benchmarks.peer_rows import OURS, Cell, Row, latest, latest_pair, times_better, with_width

PATH = Path(__file__).with_name("QUALITY.json")
SAME = 0.005
"""Changes that lie no further apart are the same: about a standard error of their difference."""
FLOATS = frozenset({"bf16", "fp16", "fp32"})
"""Weights that nothing has rounded: what the others are compared with."""


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """One format of one engine."""

    peer: str
    weights: str
    """As in `Row.weights`."""
    change: float
    """Of the perplexity against the same engine's unrounded weights: 0.05 for 5 % more."""
    how: str
    """Engine, version and text, for readers."""
    since: str = ""
    """First run in which the format is this one; a scheme may change and keep its name."""
    until: str = "~"
    """First run in which it no longer is."""


ChangeOf: TypeAlias = Callable[[Row], float | None]
"""The change that the format of a row brings; None: not measured."""


def load_quality(path: Path = PATH) -> list[Quality]:
    """What was measured."""
    return msgspec.json.decode(path.read_bytes(), type=list[Quality])


def change_of(known: Sequence[Quality]) -> ChangeOf:
    """Looks rows up."""

    def find(row: Row) -> float | None:
        if row.weights in FLOATS:
            return 0.0
        fits = (one for one in known if (one.peer, one.weights) == (row.peer, row.weights))
        return next((one.change for one in fits if one.since <= row.run < one.until), None)

    return find


def comparison(rows: Sequence[Row], cell: Cell, peer: str, change: ChangeOf) -> tuple[float, Row] | None:
    """How many times better ours is, and the other row, for the figure of one engine at one width.

    For a figure of ours: than the fastest format of any peer with the same or better quality, in the newest run that
    has both. For a peer's: the fastest of ours with the same or better quality. None where there is no such pair.
    """
    mine = latest(rows, cell, peer)
    own = change(mine)
    if own is None:
        return None
    found: list[tuple[float, Row]] = []
    for other in {(row.peer, row.width) for row in rows if (row.peer == OURS) != (peer == OURS)}:
        ours_cell, rival, width = (cell, other[0], other[1])
        if peer != OURS:
            ours_cell, rival, width = with_width(cell, other[1]), peer, cell[1]
        pair = latest_pair(rows, ours_cell, rival, width)
        if pair is None:
            continue
        first, second = pair if peer == OURS else pair[::-1]
        changes = change(first), change(second)
        times = times_better(*pair)
        if None not in changes and times is not None and changes[1] <= changes[0] + SAME:  # type: ignore[operator]
            found.append((times, second))
    if not found:
        return None
    return (min if peer == OURS else max)(found, key=lambda one: one[0])
