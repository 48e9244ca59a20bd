"""The plot of a sweep, PNG or SVG. matplotlib is an optional extra and imported only here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tgi.bench.errors import BenchError
from tgi.bench.summary import Figures

SUFFIXES = (".png", ".svg")
Curve = tuple[str, Callable[[Figures], float]]


def check(path: Path) -> None:
    """Raises BenchError where a plot could not be written at the end."""
    if path.suffix.lower() not in SUFFIXES:
        raise BenchError(f"--plot {path}: the name must end in {' or '.join(SUFFIXES)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError("--plot needs matplotlib: pip install 'text-generation-inference[plot]'")


def save(path: Path, title: str, rows: Sequence[Figures]) -> None:
    """Panels over the levels: throughput of each kind, requests, and latencies."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    requests: tuple[Curve, ...] = (("all", lambda row: row.request_rate),)
    if rows and rows[0].goodput is not None:
        requests += (("within the objectives", lambda row: row.goodput or 0.0),)
    panels: tuple[tuple[str, str, tuple[Curve, ...]], ...] = (
        ("Generation", "tokens/s", (("decode", lambda row: row.decode_tps), ("total", lambda row: row.total_tps))),
        ("Prefill", "tokens/s", (("prefill", lambda row: row.prefill_tps),)),
        ("Requests", "requests/s", requests),
        ("Time to first token", "ms", _percentiles(lambda row: row.ttft_ms)),
        ("Between tokens", "ms", (*_percentiles(lambda row: row.itl_ms), ("TPOT p50", lambda row: row.tpot_ms.p50))),
        ("End to end", "ms", _percentiles(lambda row: row.e2e_ms)),
    )
    places = [row.rate if row.concurrency is None else row.concurrency for row in rows]
    label = "requests/s" if rows and rows[0].rate is not None else "concurrent requests"
    for axes, (name, unit, curves) in zip(figure.subplots(2, 3).flat, panels, strict=True):
        _panel(axes, name, unit, label, places, [(what, [value(row) for row in rows]) for what, value in curves])
    figure.savefig(path)


def _percentiles(of: Callable[[Figures], Any]) -> tuple[Curve, ...]:
    return (
        ("p50", lambda row: of(row).p50),
        ("p90", lambda row: of(row).p90),
        ("p99", lambda row: of(row).p99),
    )


def _panel(
    axes: Any, name: str, unit: str, label: str, places: Sequence[Any], curves: Sequence[tuple[str, list[float]]]
) -> None:
    for what, values in curves:
        axes.plot(places, values, marker="o", label=what)
    axes.set_title(name, fontsize=10)
    axes.set_xlabel(label)
    axes.set_ylabel(unit)
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
