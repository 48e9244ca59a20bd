"""What `text-generation-benchmark` shows while it runs: a tab for each batch size, figures and histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tgi.bench.classic import Batch, Settings, State
from tgi.bench.percentiles import element

BARS = " ▁▂▃▄▅▆▇█"
BUCKETS = 40


@dataclass
class View:
    """What the user looks at."""

    model: str
    settings: Settings
    state: State
    tab: int | None = None
    """The chosen tab; None: the one that runs."""

    def press(self, key: str) -> None:
        """Arrows and tab choose a tab, q stops."""
        last = len(self.settings.batch_sizes) - 1
        tab = self.state.current if self.tab is None else self.tab
        if key == "right":
            self.tab = 0 if tab == last else tab + 1
        elif key == "left":
            self.tab = last if tab == 0 else tab - 1
        elif key == "q":
            self.state.progress.stop.set()


def draw(view: View) -> RenderableType:
    """The screen of now."""
    state, settings = view.state, view.settings
    tab = state.current if view.tab is None else view.tab
    batch = state.batches[tab] if tab < len(state.batches) else Batch(settings.batch_sizes[tab])
    tabs = Text("Batch size ")
    for place, size in enumerate(settings.batch_sizes):
        tabs.append(f" {size} ", style="reverse" if place == tab else "bold" if place == state.current else "dim")
        tabs.append(" ")
    all_runs = settings.runs * len(settings.batch_sizes)
    done = sum(len(one.prefill_ms) for one in state.batches)
    bars = Table.grid(padding=(0, 2))
    bars.add_row("Total", ProgressBar(total=all_runs, completed=done, width=40), f"{done} of {all_runs} runs")
    here = f"{len(batch.prefill_ms)} of {settings.runs} runs{' (warming up)' if state.warming else ''}"
    bars.add_row("Batch", ProgressBar(total=settings.runs, completed=len(batch.prefill_ms), width=40), here)
    head = f"{view.model}: sequence length {settings.sequence_length}, decode length {settings.decode_length}"
    figures = Table.grid(padding=(0, 3))
    figures.add_row("", *(Text(name, style="bold") for name in ("average", "lowest", "highest", "p50", "p90", "p99")))
    for name, values in (
        ("Prefill", batch.prefill_ms),
        ("Decode (token)", batch.token_ms),
        ("Decode (total)", batch.decode_ms),
    ):
        figures.add_row(Text(name, style="bold"), *_cells(sorted(values)))
    charts = [_chart("Prefill", batch.prefill_ms), _chart("Decode (token)", batch.token_ms)]
    help_line = Text("tab, arrows: batch size   q, ctrl-c: stop and print the tables", style="dim")
    return Group(Text(head, style="bold", no_wrap=True), tabs, bars, Text(), figures, Text(), *charts, help_line)


def _cells(ordered: Sequence[float]) -> list[str]:
    if not ordered:
        return ["-"] * 6
    values = (sum(ordered) / len(ordered), ordered[0], ordered[-1], *(element(ordered, p) for p in (50, 90, 99)))
    return [f"{value:.2f} ms" for value in values]


def _chart(name: str, values: Sequence[float]) -> Text:
    if not values:
        return Text(f"{name}: nothing yet", style="dim")
    low, high = min(values), max(values)
    return Text(f"{name} {low:.2f} ms {histogram(values)} {high:.2f} ms", no_wrap=True)


def histogram(values: Sequence[float], buckets: int = BUCKETS) -> str:
    """A line of bars: how many values lie in each part of their range."""
    low, high = min(values), max(values)
    width = (high - low) / buckets or 1.0
    counts = [0] * buckets
    for value in values:
        counts[min(int((value - low) / width), buckets - 1)] += 1
    top = max(counts)
    return "".join(BARS[-(-count * (len(BARS) - 1) // top)] for count in counts)
