"""The three Markdown tables that `text-generation-benchmark` prints, in TGI's form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tgi.bench.classic import Batch, Settings, parameters_rows
from tgi.bench.percentiles import element

LATENCY = ("Step", "Batch Size", "Average", "Lowest", "Highest", "p50", "p90", "p99")
THROUGHPUT = ("Step", "Batch Size", "Average", "Lowest", "Highest")
Values = Callable[[Batch], list[float]]


def tables(model: str, settings: Settings, batches: Sequence[Batch]) -> str:
    """Parameters, latency and throughput. Batch sizes without a complete run are left out."""
    batches = [batch for batch in batches if batch.prefill_ms]
    latencies: tuple[tuple[str, Values], ...] = (
        ("Prefill", lambda batch: batch.prefill_ms),
        ("Decode (token)", lambda batch: batch.token_ms),
        ("Decode (total)", lambda batch: batch.decode_ms),
    )
    rates: tuple[tuple[str, Values], ...] = (
        ("Prefill", lambda batch: batch.prefill_tps),
        ("Decode", lambda batch: batch.decode_tps),
    )
    return "\n".join(
        (
            markdown(("Parameter", "Value"), parameters_rows(model, settings)),
            markdown(LATENCY, _rows(batches, latencies, _latency)),
            markdown(THROUGHPUT, _rows(batches, rates, _throughput)),
        )
    )


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell."""
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |\n"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|\n"
    return line(head) + rule + "".join(map(line, rows))


def _rows(
    batches: Sequence[Batch], steps: Sequence[tuple[str, Values]], cells: Callable[[list[float]], list[str]]
) -> list[list[str]]:
    """A step's name stands in its first row only."""
    rows = []
    for step, values in steps:
        for place, batch in enumerate(batches):
            rows.append([step if place == 0 else "", str(batch.size), *cells(values(batch))])
    return rows


def _latency(values: list[float]) -> list[str]:
    ordered = sorted(values)
    percentiles = [element(ordered, percent) for percent in (50, 90, 99)]
    return [f"{_number(value)} ms" for value in (*_range(ordered), *percentiles)]


def _throughput(values: list[float]) -> list[str]:
    return [f"{_number(value)} tokens/secs" for value in _range(sorted(values))]


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{value:.2f}"


def _range(ordered: list[float]) -> tuple[float, float, float]:
    if not ordered:
        return math.nan, math.nan, math.nan
    return sum(ordered) / len(ordered), ordered[0], ordered[-1]
