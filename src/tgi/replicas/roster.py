"""The replicas there are: they come, are drained and go while the router runs.

Owns their numbers, which index the arrays of the choice: a number is given to another replica when its first one has
gone. A replica that is drained gets nothing new, its open answers end, and then it goes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator

from tgi.errors import ArgumentError
from tgi.replicas.choice import Chooser
from tgi.replicas.figures import Figures
from tgi.replicas.index import MOST_REPLICAS
from tgi.replicas.replica import Heartbeat, Replica, interval_s
from tgi.replicas.upstream import address

logger = logging.getLogger("tgi.replicas")

OnNews = Callable[[Replica, Figures | None], None]
OnGone = Callable[[Replica], None]


class Roster:
    """All replicas, in the order of their numbers."""

    def __init__(self, chooser: Chooser, on_news: OnNews, on_gone: OnGone) -> None:
        """on_news hears of every heartbeat and change, on_gone of every replica that is no longer there."""
        self._chooser, self._on_news, self._on_gone = chooser, on_news, on_gone
        self._by_number: dict[int, Replica] = {}
        self._by_url: dict[str, Replica] = {}
        self._heartbeats: dict[int, Heartbeat] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        """Where heartbeats run; None: `run` was not called yet."""
        self._failed: asyncio.Future[None] | None = None

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._by_number.values())

    def __contains__(self, replica: Replica) -> bool:
        return self._by_number.get(replica.number) is replica

    def __len__(self) -> int:
        return len(self._by_number)

    def __getitem__(self, number: int) -> Replica:
        return self._by_number[number]

    def add(self, url: str) -> Replica:
        """Use it from its first heartbeat on; one that is drained is used again. Raises ArgumentError."""
        url = address(url)[0]
        replica = self._by_url.get(url)
        if replica is None:
            replica = self._new(url)
        elif replica.draining:
            replica.draining = False
            logger.info("Replica %s is used again", url)
            self._on_news(replica, None)
        return replica

    def _new(self, url: str) -> Replica:
        number = next(number for number in range(len(self) + 1) if number not in self._by_number)
        if number >= MOST_REPLICAS:
            raise ArgumentError(f"there are more than {MOST_REPLICAS} replicas")
        size = len(self._chooser.fleet)
        if number >= size:
            self._chooser.grow(min(max(number + 1, 2 * size), MOST_REPLICAS))
        self._chooser.renew(number, url)
        replica = self._by_url[url] = Replica(number, url)
        self._by_number = dict(sorted([*self._by_number.items(), (number, replica)]))
        self._heartbeats[number] = Heartbeat(replica, lambda: interval_s(len(self)), self._on_news)
        if self._loop is not None:
            self._start(number)
        return replica

    def drain(self, url: str) -> None:
        """Nothing new goes there; it is removed when its last answer has ended."""
        replica = self._by_url.get(address(url)[0])
        if replica is not None and not replica.draining:
            replica.draining = True
            logger.info("Replica %s gets nothing new: %d answers are open", replica.url, replica.open)
            self._on_news(replica, None)
            self.ended(replica)

    def remove(self, url: str) -> None:
        """It is gone: answers that are still open fail."""
        replica = self._by_url.pop(address(url)[0], None)
        if replica is None:
            return
        del self._by_number[replica.number], self._heartbeats[replica.number]
        if (task := self._tasks.pop(replica.number, None)) is not None:
            task.cancel()
        replica.pool.abort()
        logger.info("Replica %s is removed", replica.url)
        self._on_gone(replica)

    def set(self, urls: Iterable[str]) -> None:
        """Those there are from now on: new ones are added, the others drained. Raises ArgumentError."""
        wanted = {address(url)[0] for url in urls}
        for replica in list(self):
            if replica.url not in wanted:
                self.drain(replica.url)
        for url in sorted(wanted):  # so that several routers number them alike
            self.add(url)

    def ended(self, replica: Replica) -> None:
        """An answer of the replica ended."""
        if replica.draining and not replica.open and replica in self:
            self.remove(replica.url)

    def hurry(self, replica: Replica) -> None:
        """Something went wrong there: ask it now."""
        if replica in self:
            self._heartbeats[replica.number].hurry()

    async def run(self) -> None:
        """The heartbeats of all replicas, those that come later included, until cancelled."""
        self._loop = asyncio.get_running_loop()
        self._failed = self._loop.create_future()
        try:
            for number in self._by_number:
                self._start(number)
            await self._failed
        finally:
            self._loop = None
            for task in self._tasks.values():
                task.cancel()
            self._tasks.clear()

    def _start(self, number: int) -> None:
        assert self._loop is not None
        task = self._tasks[number] = self._loop.create_task(self._heartbeats[number].run())
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A heartbeat never ends by itself."""
        error = None if task.cancelled() else task.exception()
        if error is not None and self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)
