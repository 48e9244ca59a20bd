"""Rows of `tgi quantize-report`, their table and their plot. matplotlib is imported only for that."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from tgi.engine.quality.report import BATCHES, Measured
from tgi.errors import ArgumentError
from tgi.hub import files
from tgi.shorten import size
from tgi.untrusted import printable

DEVIATIONS = 1.96
"""Standard errors on each side of an interval that holds 95 % of what chance gives."""
BLOCK = 64
"""Tokens whose losses are averaged before their spread is taken: neighbours go together."""


class Row(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One format."""

    name: str
    error: str | None = None
    """Why nothing was measured."""
    bits: float | None = None
    """Of a weight in memory, all of them."""
    file_bytes: int | None = None
    weight_bytes: int | None = None
    resident_bytes: int | None = None
    """That a process grows by while it loads the model, cache and all."""
    load_s: float | None = None
    perplexity: float | None = None
    change: float | None = None
    """Of the perplexity, against the unquantised model: 0.05 for 5 % more."""
    change_low: float | None = None
    change_high: float | None = None
    """Ends of the interval that holds it with 95 %, for other texts of this kind."""
    divergence: float | None = None
    """KL divergence from the unquantised model, nats a token."""
    prefill_tps: float | None = None
    decode_tps: dict[int, float] = {}


class Peer(msgspec.Struct, forbid_unknown_fields=True):
    """A format of another engine, measured elsewhere."""

    name: str
    change: float
    decode: dict[int, float]
    measured: str = ""


def row_of(name: str, path: str, found: Measured, base: Measured) -> Row:
    """A row of what was measured; base: of the unquantised model."""
    losses = [loss for text in found.losses for loss in text]
    divergences = [value for text in found.divergences for value in text]
    low, middle, high = interval(found.losses, base.losses)
    return Row(
        name=name,
        bits=8 * found.weight_bytes / found.parameters,
        file_bytes=file_bytes(Path(path)),
        weight_bytes=found.weight_bytes,
        resident_bytes=found.resident_bytes,
        load_s=found.load_s,
        perplexity=math.exp(statistics.fmean(losses)),
        change=middle,
        change_low=low,
        change_high=high,
        divergence=statistics.fmean(divergences) if divergences else 0.0,
        prefill_tps=found.prefill_tps,
        decode_tps=found.decode_tps,
    )


def interval(losses: Sequence[Sequence[float]], base: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Low end, middle and high end of the relative change of the perplexity, from paired losses of tokens."""
    differences = [a - b for one, other in zip(losses, base, strict=True) for a, b in zip(one, other, strict=True)]
    mean = statistics.fmean(differences)
    blocks = [statistics.fmean(differences[at : at + BLOCK]) for at in range(0, len(differences) - BLOCK + 1, BLOCK)]
    error = DEVIATIONS * statistics.stdev(blocks) / math.sqrt(len(blocks)) if len(blocks) > 1 else 0.0
    return math.expm1(mean - error), math.expm1(mean), math.expm1(mean + error)


def file_bytes(path: Path) -> int:
    """Of the weight files of a model, behind links too."""
    names = files.in_directory(path).names or [entry.name for entry in path.iterdir() if entry.name.endswith(".gguf")]
    return sum((path / name).stat().st_size for name in names)


def table(model: str, rows: Sequence[Row]) -> Table:
    """For a terminal."""
    shown = Table(title=f"{printable(model)}: formats of its weights")
    heads = ["format", "bits", "file", "weights", "process", "load s", "perplexity", "change (95 %)", "KL"]
    for head in (*heads, "prefill t/s", *(f"decode t/s at {count}" for count in BATCHES)):
        shown.add_column(head, justify="left" if head == "format" else "right")
    for row in rows:
        if row.error is not None:
            shown.add_row(row.name, "not measured")
            continue
        change = (
            ""
            if row is rows[0]
            else f"{_percent(row.change)} ({_percent(row.change_low)} to {_percent(row.change_high)})"
        )
        shown.add_row(
            row.name,
            f"{row.bits:.2f}",
            *(size(count or 0) for count in (row.file_bytes, row.weight_bytes, row.resident_bytes)),
            f"{row.load_s:.1f}",
            f"{row.perplexity:.3f}",
            change,
            "" if row is rows[0] else f"{row.divergence:.4f}",
            "-" if row.prefill_tps is None else f"{row.prefill_tps:.0f}",
            *(f"{row.decode_tps[count]:.0f}" if count in row.decode_tps else "-" for count in BATCHES),
        )
    return shown


def peers_of(path: Path) -> list[Peer]:
    """Raises ArgumentError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Peer])
    except (OSError, msgspec.DecodeError) as error:
        raise ArgumentError(f"--peers {path}: {printable(str(error), 200)}") from None


CHANGE_TICKS = (0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Per cent. Beyond the limits of the axis they are not drawn."""


def save_plot(path: Path, model: str, rows: Sequence[Row], peers: Sequence[Peer]) -> None:
    """Quality against speed: a panel for each number of requests, the best at the lower right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    name = Path(model).name if Path(model).exists() else model
    figure.suptitle(f"{printable(name)}: perplexity against the unquantised model, and speed", fontsize=10)
    for axes, count in zip(figure.subplots(1, len(BATCHES)), BATCHES, strict=True):
        ours = [(row.name, row.decode_tps[count], row.change) for row in rows if count in row.decode_tps]
        theirs = [(peer.name, peer.decode[count], peer.change) for peer in peers if count in peer.decode]
        _scatter(axes, ours, "tab:blue", "tgi")
        if theirs:
            _scatter(axes, theirs, "tab:gray", "others")
            axes.legend(fontsize=8)
        axes.set_title(f"{count} request{'s' if count > 1 else ''} at once", fontsize=10)
        axes.set_xlabel("decoded tokens a second")
        axes.set_ylabel("more perplexity, %")
        axes.set_yscale("symlog", linthresh=1)
        least, most = (limit(100 * (change or 0) for _, _, change in (*ours, *theirs)) for limit in (min, max))
        axes.set_yticks(CHANGE_TICKS, [f"{tick:g}" for tick in CHANGE_TICKS])
        axes.minorticks_off()
        axes.set_ylim(min(-0.2, least - 0.2), max(1.0, 1.4 * most))
        fastest = max((speed for _, speed, _ in (*ours, *theirs)), default=1.0)
        axes.set_xlim(0, 1.2 * fastest)  # room for the names
        axes.grid(alpha=0.3)
    figure.savefig(path)


def _scatter(axes: Any, points: Sequence[tuple[str, float, float | None]], color: str, label: str) -> None:
    axes.scatter(
        [speed for _, speed, _ in points], [100 * (change or 0) for _, _, change in points], color=color, label=label
    )
    for name, speed, change in points:
        axes.annotate(
            Path(name).name, (speed, 100 * (change or 0)), (4, 4), textcoords="offset points", fontsize=8, color=color
        )


def _percent(value: float | None) -> str:
    return f"{100 * (value or 0):+.1f} %"
