"""Which models and replicas there are and where: each says so again and again, and routers read the list.

Owns how long a word counts. A replica that stops saying so is gone; right after its own start the directory does not
know yet who is there, and says that rather than an empty list.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SAY_EVERY_S = 1.0
"""Replicas announce themselves so often."""
VALID_S = 6.0
"""A word counts for so long."""
SETTLED_S = 3.0
"""After so long every living replica has announced itself."""


class Directory:
    """One for a deployment; a Serve deployment of its own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._said: dict[str, tuple[float, dict[str, Any]]] = {}
        self._models: dict[str, str] = {}

    def expect(self, models: dict[str, str]) -> None:
        """The models that there are to be -> their Serve applications, the first one first."""
        self._models = dict(models)

    def announce(self, entry: dict[str, Any]) -> None:
        """A replica is there; `url` is what it is known by."""
        self._said[entry["url"]] = (self._clock(), entry)

    def leave(self, url: str) -> None:
        """A replica is about to end: it takes nothing new."""
        self._said.pop(url, None)

    def known(self) -> tuple[list[dict[str, Any]] | None, dict[str, str]]:
        """All replicas, sorted by model and address, None: not known yet; and the models that were expected."""
        now = self._clock()
        self._said = {url: (when, entry) for url, (when, entry) in self._said.items() if now - when < VALID_S}
        replicas = sorted((entry for _, entry in self._said.values()), key=lambda one: (one["model"], one["url"]))
        return (replicas if now - self._began >= SETTLED_S else None), self._models
