"""Request bodies that are under way: how slow each may be, and how much all of them may hold.

Owns the two bounds. Permits are taken when a body is there, so that slow clients hold up nobody; without these
bounds a few hundred of them could fill the memory instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tgi.errors import MalformedRequestError, OverloadedError

PATIENCE_S = 60.0
MINIMUM_RATE = 1024
"""Bytes a second. A body has `PATIENCE_S` at the start; each piece adds its time at this rate, up to that again."""
TOTAL_LIMIT = 64 << 20
"""Bytes that unfinished bodies hold together; more where `--payload-limit` is half of it or more."""


class Intake:
    """All bodies of one server that are being read."""

    def __init__(self, payload_limit: int) -> None:
        self.limit = max(TOTAL_LIMIT, 2 * payload_limit)
        self.held = 0
        self._arriving: set[Arriving] = set()

    @asynccontextmanager
    async def body(self) -> AsyncGenerator[Arriving, None]:
        """Around the reading of one body. Raises MalformedRequestError (408) or OverloadedError when it is given up."""
        arriving = Arriving(self)
        self._arriving.add(arriving)
        try:
            async with asyncio.timeout_at(arriving.deadline) as arriving.timeout:
                yield arriving
        except TimeoutError:
            raise (_no_room() if arriving.given_up else _too_slow()) from None
        finally:
            self._forget(arriving)

    def add(self, arriving: Arriving, size: int) -> None:
        """Room for more of a body: where there is none, that is given up which has held most for longest."""
        arriving.held += size
        self.held += size
        while self.held > self.limit:
            now = asyncio.get_running_loop().time()
            worst = max(self._arriving, key=lambda one: one.held * (now - one.since))
            worst.given_up = True
            worst.timeout.reschedule(now)
            self._forget(worst)

    def _forget(self, arriving: Arriving) -> None:
        self._arriving.discard(arriving)
        self.held -= arriving.held
        arriving.held = 0


class Arriving:
    """One body."""

    timeout: asyncio.Timeout

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.held = 0
        """Bytes of it in memory."""
        self.since = asyncio.get_running_loop().time()
        self.deadline = self.since + PATIENCE_S
        self.given_up = False

    def add(self, received: int, size: int) -> None:
        """A piece of `received` bytes, which takes `size` in memory. Raises OverloadedError."""
        now = asyncio.get_running_loop().time()
        self.deadline = min(self.deadline + received / MINIMUM_RATE, now + PATIENCE_S)
        self._intake.add(self, size)
        if self.given_up:
            raise _no_room()
        self.timeout.reschedule(self.deadline)


def _too_slow() -> MalformedRequestError:
    message = f"The request body came too slowly: at least {MINIMUM_RATE} bytes a second are expected"
    return MalformedRequestError(message, 408)


def _no_room() -> OverloadedError:
    error = OverloadedError("Too many request bodies are under way: send this one again later")
    error.headers["retry-after"] = "1"
    return error
