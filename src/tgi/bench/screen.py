"""What `tgi bench` shows while it runs: the rows done so far, and the level in progress."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tgi.bench.load import Load, Progress
from tgi.bench.percentiles import percentile
from tgi.bench.record import Record
from tgi.bench.report import number, tables
from tgi.bench.summary import Figures

RECENT_S = 2.0


@dataclass
class Sweep:
    """Where the command is; changed by it, drawn by `draw`."""

    title: str
    loads: Sequence[Load]
    rows: list[Figures] = field(default_factory=list)
    progress: Progress | None = None


def draw(sweep: Sweep, now: float, width: int) -> RenderableType:
    """The screen at a moment of the clock that stamps the records; `width` in characters."""
    parts: list[RenderableType] = [Text(sweep.title, style="bold", no_wrap=True)]
    if sweep.rows:
        parts += tables(sweep.rows, width)
    progress, place = sweep.progress, len(sweep.rows)
    if progress is not None and place < len(sweep.loads):
        parts.append(_level(sweep.loads[place], f"{place + 1} of {len(sweep.loads)}", progress, now))
    parts.append(Text("q or ctrl-c: stop here and print the table", style="dim"))
    return Group(*parts)


def _level(load: Load, where: str, progress: Progress, now: float) -> Table:
    elapsed = now - progress.began if progress.began else 0.0
    records = list(progress.records)
    done, total = (progress.done, load.requests) if load.requests is not None else (elapsed, load.duration or 0.0)
    what = f"{progress.done} of {load.requests} requests" if load.requests is not None else f"{progress.done} requests"
    grid = Table.grid(padding=(0, 2))
    grid.add_row(f"level {where}", f"{load.name} at once" if load.rate is None else f"{load.name} at random moments")
    grid.add_row("progress", ProgressBar(total=max(total, 1e-9), completed=min(done, total), width=40))
    failed = Text(f", {progress.errors} failed", style="red") if progress.errors else Text()
    grid.add_row("", Text(f"{what}, {len(records) - progress.done} in flight, {elapsed:.0f} s") + failed)
    grid.add_row("tokens/s", number(recent_rate(records, now)))
    first = sorted(record.ttft * 1e3 for record in records if record.times)
    gaps = sorted(gap * 1e3 for record in records[-64:] for gap in record.gaps)
    grid.add_row("TTFT p50, p99", f"{number(percentile(first, 50))}, {number(percentile(first, 99))} ms")
    grid.add_row("gap p50, p99", f"{number(percentile(gaps, 50))}, {number(percentile(gaps, 99))} ms")
    return grid


def recent_rate(records: Sequence[Record], now: float) -> float:
    """Tokens a second over the last moments."""
    begin = now - RECENT_S
    tokens = 0.0
    for record in records:
        if record.times and record.times[-1] > begin:
            tokens += sum(record.counts[bisect_right(record.times, begin) :])
    return tokens / RECENT_S
