"""Progress bars of `tgi.LLM`: one while a model is loaded, one over prompts.

Both are for people: by default they are shown on a terminal only. Owns their looks; who knows how far something is
tells them.
"""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

MANY_PROMPTS = 8
"""Prompts up to which no bar is shown."""
_PHASES = {"allocate": "Reserving the KV cache", "warmup": "Warming up"}


class LoadingBar:
    """How much of a model's weights is read, on standard error; its methods may be called from any thread."""

    def __init__(self, wanted: bool | None) -> None:
        """`wanted`: show it; None: on a terminal."""
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._progress.disable = not (self._progress.console.is_terminal if wanted is None else wanted)
        self._task = self._progress.add_task("Loading weights", total=None)

    def __enter__(self) -> LoadingBar:
        self._progress.start()
        return self

    def __exit__(self, kind: object, *unused: object) -> None:
        self._progress.update(self._task, description="Loaded" if kind is None else "Not loaded")
        self._progress.stop()

    def read(self, done: int, total: int) -> None:
        """`done` of `total` bytes of weights are read."""
        self._progress.update(self._task, completed=done, total=total)

    def enter_phase(self, name: str) -> None:
        """Another phase of `engine.worker`'s start has begun."""
        self._progress.update(self._task, description=_PHASES.get(name, name))


class PromptBar:
    """How many of the prompts are answered."""

    def __init__(self, total: int | None, wanted: bool | None) -> None:
        """total: None where nobody knows. `wanted`: show it; None: for many prompts on a terminal."""
        columns = (TextColumn("Prompts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns)
        shown = (
            wanted
            if wanted is not None
            else (total is None or total > MANY_PROMPTS) and self._progress.console.is_terminal
        )
        self._progress.disable = not shown
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> Callable[[], None]:
        self._progress.start()
        return lambda: self._progress.advance(self._task)

    def __exit__(self, *unused: object) -> None:
        self._progress.stop()
