"""The tables at the end of `tgi bench`, and the JSON file.

Owns columns and number formats. Does not compute (`summary`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich import box
from rich.table import Table

from tgi.bench.summary import Figures, Spread

Column = tuple[str, Callable[[Figures], str]]
WIDE = 150
LEGEND = "t/s: tokens a second; latencies in ms; client: share of a core that the measuring took"


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, and how; the head of the JSON file."""

    url: str
    api: str
    model: str
    prompt_tokens: str
    output_tokens: str
    arrivals: str
    shared_prefix: int
    seed: int
    version: str
    """Of this tool."""
    date: str
    """UTC, ISO 8601."""
    notes: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True):
    """The JSON file."""

    setup: Setup
    levels: list[Figures]


def tables(rows: Sequence[Figures], width: int) -> list[Table]:
    """A row for each level, in Markdown; as two tables where one is wider than the terminal."""
    rates, latencies = _rates(rows), _latencies(rows)
    if width >= WIDE:
        return [_table(rows, [*rates[:-1], *latencies, rates[-1]])]
    return [_table(rows, rates), _table(rows, latencies)]


def _rates(rows: Sequence[Figures]) -> list[Column]:
    columns: list[Column] = [
        ("requests", lambda row: str(row.requests)),
        ("failed", lambda row: str(row.requests - row.ok)),
        ("prefill t/s", lambda row: number(row.prefill_tps)),
        ("decode t/s", lambda row: number(row.decode_tps)),
        ("total t/s", lambda row: number(row.total_tps)),
    ]
    if any(row.goodput is not None for row in rows):
        columns.append(("good/s", lambda row: number(math.nan if row.goodput is None else row.goodput)))
    columns.append(("client", lambda row: "-" if math.isnan(row.client_cpu) else f"{row.client_cpu:.0%}"))
    return columns


def _latencies(rows: Sequence[Figures]) -> list[Column]:
    return [
        ("TTFT p50/90/99", lambda row: spread(row.ttft_ms)),
        ("TPOT p50/90/99", lambda row: spread(row.tpot_ms)),
        ("ITL p50/90/99", lambda row: spread(row.itl_ms)),
        ("E2E p50/90/99", lambda row: spread(row.e2e_ms)),
    ]


def _table(rows: Sequence[Figures], columns: Sequence[Column]) -> Table:
    result = Table(box=box.MARKDOWN)
    result.add_column("rate" if any(row.rate is not None for row in rows) else "at once", justify="right", no_wrap=True)
    for name, _ in columns:
        result.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        result.add_row(row.load, *(cell(row) for _, cell in columns))
    return result


def number(value: float) -> str:
    """Three digits, more before the point; `-` for NaN."""
    if math.isnan(value):
        return "-"
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}"


def spread(value: Spread) -> str:
    """The three percentiles with a slash between."""
    return "/".join(number(part) for part in (value.p50, value.p90, value.p99))


def save(path: Path, setup: Setup, rows: Sequence[Figures]) -> None:
    """Write the JSON file; NaN becomes null."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(Report(setup, list(rows))), indent=2) + b"\n")
