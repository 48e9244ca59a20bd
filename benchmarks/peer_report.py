"""The results as a page of Markdown. Owns its wording and layout; figures are `peer_rows`', what may be
compared is `peer_quality`'s."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.peer_quality import ChangeOf, Quality, change_of, comparison
from benchmarks.peer_rows import OURS, Cell, Results, Row, Run, latest

BUSY = 0.1
WIDTHS = {"bf16": "bf16", "int8": "8-bit", "int5": "5-bit", "int4": "4-bit"}
HEAD = """# Beside the peers

Written by `python -m benchmarks.peers`; [docs/benchmark.md](../docs/benchmark.md) says how to repeat it. Random weights
of real shapes, prompts of 128 random tokens, 64 new ones, greedy, no hits in a prefix cache; medians of alternating
repetitions on the same cores.

A format is worth what is left of the model: *perplexity* is how much of it rounding adds on a real one (SmolLM2-135M-
Instruct, weights off every format's lattice; [QUALITY.json](QUALITY.json) says how each was measured). A format without
that figure is not shown.

In brackets: how many times better ours is (faster; for latency and memory: less), from the medians of one run that
measured both. On our rows: than the best of all peers' formats of the same or better quality (within half a percentage
point), which is named where it is of another width. On a peer's row: the best of our formats of the same or better
quality. Below 1 the peer is better. `~` marks a figure whose repetitions lie more than 20 % apart, `!` one beside which
something else kept more than 10 % of the cores busy. Between rows of different runs compare nothing but ratios.
"""

Column = tuple[str, str, int]
"""Heading, metric, concurrency."""
ENGINE_COLUMNS: list[Column] = [
    ("prefill 512 t/s", "prefill_tps", 1),
    *((f"decode at {count}" if count == 1 else str(count), "decode_tps", count) for count in (1, 4, 8, 16)),
    ("peak RSS MiB", "rss_mib", 0),
]
HTTP_COLUMNS: list[tuple[str, str]] = [
    ("TTFT p50 ms", "ttft_ms"),
    ("gap p50 ms", "itl_ms"),
    ("decode t/s", "decode_tps"),
    ("total t/s", "total_tps"),
]


def page(results: Results, known: Sequence[Quality]) -> str:
    """All of it. known: the formats' quality; rows of others are left out."""
    parts, change = [HEAD], change_of(known)
    shown = [row for row in results.rows if change(row) is not None]
    for shape in dict.fromkeys(row.shape for row in shown):
        parts.append(f"## {shape}\n")
        rows = [row for row in shown if row.shape == shape]
        if any(row.path == "engine" for row in rows):
            parts.append("Engines in process, tokens a second:\n")
            parts.append(engine_table([row for row in rows if row.path == "engine"], change))
        if any(row.path == "http" for row in rows):
            parts.append("Over HTTP, all requests sent at one moment:\n")
            parts.append(http_table(rows, change))
    parts.append("## Runs\n")
    parts += [_run(run) for run in results.runs]
    return "\n".join(parts)


def engine_table(rows: Sequence[Row], change: ChangeOf) -> str:
    """A row for each width and engine."""
    lines = [_line("weights", "engine", "perplexity", *(name for name, _, _ in ENGINE_COLUMNS), "run")]
    lines.append(_rule(2, len(ENGINE_COLUMNS) + 1, 1))
    for width, peer in _engines(rows):
        cells = [(rows[0].shape, width, "engine", metric, count) for _, metric, count in ENGINE_COLUMNS]
        figures = [_cell(rows, cell, peer, change) for cell in cells]
        lines.append(_line(*_names(rows, width, peer, change), *figures, _runs(rows, width, peer)))
    return "\n".join(lines) + "\n"


def http_table(rows: Sequence[Row], change: ChangeOf) -> str:
    """A row for each width, server and concurrency; `rows` has those in process too, for the share of them."""
    names = [name for name, _ in HTTP_COLUMNS]
    lines = [
        _line(
            "weights", "server", "perplexity", "at once", *names, "client CPU", "of in process", "peak PSS MiB", "run"
        )
    ]
    lines.append(_rule(2, len(HTTP_COLUMNS) + 5, 1))
    http = [row for row in rows if row.path == "http"]
    for width, peer in _engines(http):
        counts = {row.concurrency for row in http if row.width == width and row.peer == peer and row.concurrency}
        names_of_row, runs = _names(http, width, peer, change), _runs(http, width, peer)
        lines += [
            _line(*names_of_row, str(count), *_http_cells(rows, width, peer, count, change), runs)
            for count in sorted(counts)
        ]
    return "\n".join(lines) + "\n"


def _http_cells(rows: Sequence[Row], width: str, peer: str, count: int, change: ChangeOf) -> list[str]:
    def cell(metric: str, concurrency: int = count) -> Cell:
        return rows[0].shape, width, "http", metric, concurrency

    client = [row for row in rows if row.cell == cell("client_cpu") and row.peer == peer]
    return [
        *(_cell(rows, cell(metric), peer, change) for _, metric in HTTP_COLUMNS),
        f"{max(client, key=lambda row: row.run).median:.0%}" if client else "-",
        _share(rows, cell("decode_tps"), peer),
        _cell(rows, cell("pss_mib", 0), peer, change),
    ]


def _share(rows: Sequence[Row], cell: Cell, peer: str) -> str:
    """Decode over HTTP, of what the same run measured in process."""
    inside = (*cell[:2], "engine", *cell[3:])
    http, engine = ({row.run: row for row in rows if row.cell == one and row.peer == peer} for one in (cell, inside))
    run = max(http.keys() & engine.keys(), default=None)
    return "-" if run is None else f"{http[run].median / engine[run].median:.0%}"


def _cell(rows: Sequence[Row], cell: Cell, peer: str, change: ChangeOf) -> str:
    if not any(row.cell == cell and row.peer == peer for row in rows):
        return "-"
    row = latest(rows, cell, peer)
    other = comparison(rows, cell, peer, change)
    mark = "!" * (row.busy > BUSY) + "~" * row.unsteady
    if other is None:
        return f"{mark}{_number(row.median)}"
    times, rival = other
    name = f" {_format(rival)}" if rival.width != cell[1] else ""
    return f"{mark}{_number(row.median)} ({times:.2f}x{name})"


def _format(row: Row) -> str:
    """An engine and its weights, where these are not those of the row beside it."""
    return f"{row.peer} {row.weights}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _engines(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """Width and peer of each row of the table: by width, ours first, then by name."""
    order = list(WIDTHS)
    return sorted(
        {(row.width, row.peer) for row in rows}, key=lambda one: (order.index(one[0]), one[1] != OURS, one[1])
    )


def _names(rows: Sequence[Row], width: str, peer: str, change: ChangeOf) -> tuple[str, str, str]:
    row = max((row for row in rows if row.width == width and row.peer == peer), key=lambda row: row.run)
    name = peer if row.weights in (width, "fp16") else f"{peer} {row.weights}"
    return WIDTHS[width], f"**{name}**" if peer == OURS else name, f"{100 * (change(row) or 0):+.1f} %"


def _runs(rows: Sequence[Row], width: str, peer: str) -> str:
    runs = sorted({row.run for row in rows if row.width == width and row.peer == peer})
    return ", ".join(f"[{run}](#{run.lower()})" for run in runs)


def _run(run: Run) -> str:
    lines = [f"### {run.id}\n", f"`{run.command}`, {run.repetitions} repetitions, commit {run.commit}.\n"]
    lines.append("; ".join(f"{name} {value}" for name, value in run.host.items()) + ".\n")
    lines.append(", ".join(f"{name} {value}" for name, value in sorted(run.versions.items())) + ".\n")
    lines += [f"- {note}" for note in run.notes]
    return "\n".join(lines) + ("\n" if run.notes else "")


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(texts: int, numbers: int, more: int) -> str:
    return _line(*["---"] * texts, *["---:"] * numbers, *["---"] * more)
