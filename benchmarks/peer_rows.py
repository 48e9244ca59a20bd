"""What a comparison measured: rows, the runs they are from, and the file that keeps them.

Owns merging and ratios. Two rows are compared only when one run measured both: a machine drifts by more
than what is to be told apart. Used by `peers`, `peer_report` and tests; imports nothing heavy.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

OURS = "ours"
LOWER_IS_BETTER = frozenset({"ttft_ms", "itl_ms", "rss_mib", "pss_mib"})
UNSTEADY = 0.2

Cell = tuple[str, str, str, str, int]
"""Shape, width, path, metric, concurrency: what rows of several engines have in common."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one engine, with the value of every repetition."""

    run: str
    shape: str
    width: str
    """bf16, int8, int5 or int4: how many bits a weight has."""
    path: str
    """engine: in process. http: a server and the load client."""
    peer: str
    """OURS or the name of a peer."""
    weights: str
    """The format of the weights in the peer's words."""
    metric: str
    """prefill_tps, decode_tps, total_tps, client_cpu (share of a core), or one of LOWER_IS_BETTER."""
    concurrency: int
    """Requests at once; 0: of the process, whatever ran."""
    values: list[float]
    busy: float = 0.0
    """The most that other processes took just before or during a repetition, share of all cores."""

    @property
    def cell(self) -> Cell:
        return self.shape, self.width, self.path, self.metric, self.concurrency

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def unsteady(self) -> bool:
        """The repetitions lie far apart."""
        return max(self.values) - min(self.values) > UNSTEADY * self.median


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One start of the program: what makes its rows comparable."""

    id: str
    """The moment it began, UTC; later runs sort after earlier ones."""
    commit: str
    """Of this project; with a plus sign when files had been changed since."""
    host: dict[str, str]
    versions: dict[str, str]
    repetitions: int
    command: str
    notes: list[str] = []
    """What failed or was left out."""


class Results(msgspec.Struct, frozen=True):
    """The file."""

    runs: list[Run] = []
    rows: list[Row] = []

    def merged(self, run: Run, rows: Iterable[Row]) -> Results:
        """With another run's rows; what no table or ratio shows any more is dropped."""
        everything = [*self.rows, *rows]
        runs = [*(one for one in self.runs if one.id != run.id), run]
        shown = set[tuple[str, str, Cell]]()
        widths = {row.width for row in everything if row.peer == OURS}
        for row in everything:
            best = latest(everything, row.cell, row.peer)
            shown.add((best.run, best.peer, best.cell))
            for width in widths if row.peer != OURS else ():
                if pair := latest_pair(everything, with_width(row.cell, width), row.peer, row.width):
                    shown |= {(one.run, one.peer, one.cell) for one in pair}
        kept = sorted((row for row in everything if (row.run, row.peer, row.cell) in shown), key=_order)
        used = {row.run for row in kept}
        return Results([one for one in runs if one.id in used], kept)


def latest(rows: Sequence[Row], cell: Cell, peer: str) -> Row:
    """The newest row of a peer. Raises ValueError when there is none."""
    return max((row for row in rows if row.cell == cell and row.peer == peer), key=lambda row: row.run)


def with_width(cell: Cell, width: str) -> Cell:
    """The same figure at another width."""
    return cell[0], width, *cell[2:]


def latest_pair(rows: Sequence[Row], cell: Cell, peer: str, width: str | None = None) -> tuple[Row, Row] | None:
    """Our row and the peer's, at its own width if one is given, of the newest run that has both."""
    theirs_cell = cell if width is None else with_width(cell, width)
    ours = {row.run: row for row in rows if row.cell == cell and row.peer == OURS}
    theirs = {row.run: row for row in rows if row.cell == theirs_cell and row.peer == peer}
    run = max(ours.keys() & theirs.keys(), default=None)
    return None if run is None else (ours[run], theirs[run])


def times_better(ours: Row, theirs: Row) -> float | None:
    """How many times better ours is, of medians."""
    above, below = (theirs, ours) if ours.metric in LOWER_IS_BETTER else (ours, theirs)
    return above.median / below.median if below.median > 0 else None


def ratio(rows: Sequence[Row], cell: Cell, peer: str, width: str | None = None) -> float | None:
    """How many times better ours is than a peer, of medians in one run; None when no run has both."""
    pair = latest_pair(rows, cell, peer, width)
    return None if pair is None else times_better(*pair)


def least_ratio(rows: Sequence[Row], cell: Cell) -> float | None:
    """To the best peer of this width. It is the least of the ratios: each is of one run, absolutes may not be."""
    peers = {row.peer for row in rows if row.cell == cell and row.peer != OURS}
    return min((value for peer in peers if (value := ratio(rows, cell, peer)) is not None), default=None)


def load(path: Path) -> Results:
    """Empty when there is no file."""
    return msgspec.json.decode(path.read_bytes(), type=Results) if path.exists() else Results()


def save(path: Path, results: Results) -> None:
    """Written beside and renamed: a run that is killed leaves the old file."""
    beside = path.with_suffix(".tmp")
    beside.write_bytes(b"\n".join(_lines(results)) + b"\n")
    beside.rename(path)


def _lines(results: Results) -> Iterable[bytes]:
    """A run and a row a line, so that a diff shows what changed."""
    encode = msgspec.json.encode
    yield b'{"runs":['
    yield b",\n".join(encode(run) for run in results.runs)
    yield b'],\n"rows":['
    yield b",\n".join(encode(row) for row in results.rows)
    yield b"]}"


def _order(row: Row) -> tuple[object, ...]:
    return row.shape, row.path, row.width, row.metric, row.concurrency, row.peer, row.run
