"""Waiting for a replica: when none of a model can be used, because none has started or the only one is replaced.

Owns how long a request waits, and that somebody hears of it who can start one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger("tgi.replicas")

Wake = Callable[[str], Awaitable[None]]


class Starts:
    """Shared by all requests of a router."""

    def __init__(self, longest_s: float = 0.0, wake: Wake | None = None) -> None:
        """longest_s: a request waits so long at most, 0: not at all; wake: asks for a replica of a model."""
        self.longest_s = longest_s
        self._wake = wake
        self._waking: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()

    @property
    def on_demand(self) -> bool:
        """Whether a request starts a replica."""
        return self._wake is not None

    def tell(self) -> None:
        """A replica came, went or changed."""
        self._news.set()
        self._news = asyncio.Event()

    async def wait(self, model: str, there: Callable[[], bool], spent_s: float) -> bool:
        """Whether a replica was there in time; spent_s: what the request has waited already."""
        try:
            async with asyncio.timeout(max(self.longest_s - spent_s, 0)):
                while not there():
                    self._ask_for(model)
                    # Also now and then: that a replica is left alone for a moment ends by itself.
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._news.wait(), 0.2)
        except TimeoutError:
            return False
        return True

    def _ask_for(self, model: str) -> None:
        """One question a model at a time, whoever waits."""
        if self._wake is None or model in self._waking:
            return
        task = self._waking[model] = asyncio.ensure_future(self._asked(self._wake, model))
        task.add_done_callback(lambda _: self._waking.pop(model, None))

    async def _asked(self, wake: Wake, model: str) -> None:
        try:
            await wake(model)
        except Exception as error:  # of whoever starts replicas; asked again while somebody waits
            logger.warning("Asking for a replica of `%s` failed: %s", model, error)
            await asyncio.sleep(1.0)
