"""One level of load: requests at a fixed concurrency, in bursts, or at a fixed rate.

Owns when requests are sent, and what else is noted meanwhile (the client's own processor time and
delays). Does not compute figures (`summary`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

from tgi.bench.dialects import Ask, Dialect
from tgi.bench.errors import RequestError
from tgi.bench.prompts import Lengths, Scale, ids, text
from tgi.bench.record import Record
from tgi.bench.target import Target

Arrivals = Literal["closed", "burst"]
TICK_S = 0.02
GIVE_UP = 100
"""Failed requests without a success after which a level sends no more: a server that is gone fails quickly."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Load:
    """How many requests at once or a second, and how long."""

    concurrency: int | None = None
    """Requests in flight; None when `rate` is given."""
    rate: float | None = None
    """Requests a second, Poisson: when they come does not depend on the server."""
    arrivals: Arrivals = "closed"
    """closed: a request follows each that ended. burst: all at once, and again when the last ended."""
    requests: int | None = None
    duration: float | None = None
    """Seconds in which requests are sent; those under way are finished. The first limit reached counts."""

    def __post_init__(self) -> None:
        assert (self.concurrency is None) != (self.rate is None), "one of concurrency and rate"
        assert self.requests is not None or self.duration is not None, "a load has an end"

    @property
    def name(self) -> str:
        return str(self.concurrency) if self.rate is None else f"{self.rate:g}/s"


class Source:
    """Draws requests: distinct prompts of the lengths asked for."""

    def __init__(
        self,
        rng: random.Random,
        dialect: Dialect,
        scale: Scale,
        prompts: Lengths,
        outputs: Lengths,
        *,
        shared_prefix: int = 0,
        vocabulary: int | None = None,
    ) -> None:
        """`shared_prefix`: tokens that all prompts begin with. `vocabulary`: send token ids below it, not text."""
        self._rng = rng
        self._dialect = dialect
        self._scale = scale
        self._prompts = prompts
        self._outputs = outputs
        self._vocabulary = vocabulary
        self._cut = dialect.name == "tgi" and not shared_prefix
        self._prefix_tokens = shared_prefix
        self._prefix_words = text(rng, scale.words(shared_prefix)) if shared_prefix and vocabulary is None else ""
        self._prefix_ids = ids(rng, shared_prefix, vocabulary) if vocabulary is not None else []

    def draw(self) -> tuple[Ask, bytes]:
        """A request and its body."""
        tokens, new_tokens = self._prompts.draw(self._rng), self._outputs.draw(self._rng)
        ask = Ask(self._prompt(tokens), tokens, new_tokens, self._cut)
        return ask, self._dialect.body(ask)

    def _prompt(self, tokens: int) -> str | list[int]:
        if self._vocabulary is not None:
            return self._prefix_ids + ids(self._rng, tokens - len(self._prefix_ids), self._vocabulary)
        if self._cut:
            return text(self._rng, self._scale.enough_words(tokens))
        if not self._prefix_tokens:
            return text(self._rng, self._scale.words(tokens))
        words = max(1, self._scale.words(tokens) - self._scale.words(self._prefix_tokens))
        return f"{self._prefix_words} {text(self._rng, words)}"


@dataclass
class Progress:
    """A level while it runs, for a screen to look at; the only thing that stops it early."""

    records: list[Record] = field(default_factory=list)
    """Every request sent, in flight or done."""
    done: int = 0
    errors: int = 0
    began: float = 0.0
    stop: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Level:
    """What was noted while a load ran."""

    load: Load
    records: list[Record]
    """Requests that came to an end, well or not."""
    began: float
    ended: float
    cpu_s: float
    """Processor time of this process, all its threads."""
    delays: list[float]
    """How much later than asked the event loop woke up, seconds, sampled all along."""
    stopped: bool = False

    @property
    def wall(self) -> float:
        return self.ended - self.began


async def run(
    target: Target, load: Load, draw: Callable[[], tuple[Ask, bytes]], rng: random.Random, progress: Progress
) -> Level:
    """Run one level to its end, or until `progress.stop` is set: then what is in flight is dropped."""
    clock = target.client.clock
    limit = Limit(load, clock)
    done: list[Record] = []

    async def one(drawn: tuple[Ask, bytes], at: float | None = None) -> None:
        record = await target.send(*drawn, at=at, begin=progress.records.append)
        done.append(record)
        progress.done += 1
        progress.errors += record.error is not None
        if progress.errors == progress.done >= GIVE_UP:
            limit.close()

    try:
        await target.client.warm(min(load.concurrency or 0, load.requests or 1 << 30))
    except RequestError:
        logger.debug("connections could not be opened beforehand")  # the requests will say why
    if load.rate is not None:
        work = _at_rate(load.rate, rng, limit, draw, one)
    else:
        work = (_bursts if load.arrivals == "burst" else _closed)(load.concurrency or 1, limit, draw, one)
    delays: list[float] = []
    ticking = asyncio.create_task(_tick(delays))
    stopping = asyncio.create_task(progress.stop.wait())
    progress.began, cpu = clock(), time.process_time()
    running = asyncio.create_task(work)
    try:
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopped = not running.done()
    finally:
        for task in (running, stopping, ticking):
            task.cancel()
        await asyncio.gather(running, stopping, ticking, return_exceptions=True)
    if not stopped:
        running.result()  # a mistake of ours is not swallowed
    ended, cpu = clock(), time.process_time() - cpu
    return Level(load, done, progress.began, ended, cpu, delays, stopped)


class Limit:
    """Counts requests, and says when no more are to be sent."""

    def __init__(self, load: Load, clock: Callable[[], float]) -> None:
        self._left = load.requests
        self._duration = load.duration
        self.clock = clock
        self._began: float | None = None

    def close(self) -> None:
        """No more, whatever is left."""
        self._left = 0

    def take(self) -> bool:
        """Whether one more may be sent; it then counts."""
        if self._began is None:
            self._began = self.clock()
        if self._duration is not None and self.clock() - self._began >= self._duration:
            return False
        if self._left is not None:
            if self._left <= 0:
                return False
            self._left -= 1
        return True


Draw = Callable[[], tuple[Ask, bytes]]
Send = Callable[..., Coroutine[Any, Any, None]]


async def _closed(concurrency: int, limit: Limit, draw: Draw, send: Send) -> None:
    async def worker(drawn: tuple[Ask, bytes]) -> None:
        await send(drawn)
        while limit.take():
            await send(draw())

    first = [draw() for _ in range(concurrency)]  # before any is sent: they start together
    async with asyncio.TaskGroup() as group:
        for drawn in first:
            if limit.take():
                group.create_task(worker(drawn))


async def _bursts(concurrency: int, limit: Limit, draw: Draw, send: Send) -> None:
    while True:
        drawn = [draw() for _ in range(concurrency)]
        drawn = [one for one in drawn if limit.take()]
        if not drawn:
            return
        async with asyncio.TaskGroup() as group:
            for one in drawn:
                group.create_task(send(one))


async def _at_rate(rate: float, rng: random.Random, limit: Limit, draw: Draw, send: Send) -> None:
    """Requests at random moments. Each counts from the moment it was due, so that a client or server that
    falls behind cannot hide it (coordinated omission)."""
    due = limit.clock()
    async with asyncio.TaskGroup() as group:
        while limit.take():
            drawn = draw()
            due += rng.expovariate(rate)
            wait = due - limit.clock()
            if wait > 0:
                await asyncio.sleep(wait)
            group.create_task(send(drawn, due))


async def _tick(delays: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(TICK_S)
        delays.append(max(0.0, loop.time() - before - TICK_S))
