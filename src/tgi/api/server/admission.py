"""Permits: how many generations may be open at once, who waits for one, and what is said to those beyond.

Owns the count, the line of those that wait (`--max-queue`), its order, the refusal with its time to come back, and the
end of admission when the server drains. Who holds how many is counted by `shares`, times are `retry_times`'s.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

from tgi.api.server.retry_times import RetryTimes
from tgi.api.server.shares import Shares
from tgi.errors import OverloadedError, ShuttingDownError, ValidationError

QUEUE_BYTES = 64_000_000
"""Bodies of those that wait, in sum: more are refused, however few they are."""


class Permit:
    """One request's permits: granted, or in line for them."""

    def __init__(self, group: int, count: int, size: int) -> None:
        self.group = group
        self.count = count
        self.size = size
        """Bytes of the body that waits with it."""
        self.since: float | None = None
        """When it was granted; None: it waits."""
        self.taken = 0
        """How many were out then, it among them."""
        self.news: asyncio.Future[None] | None = None
        """For one that waits: done when it is granted, or refused after all."""


class Permits:
    """At most `limit` permits are out. Belongs to one event loop."""

    def __init__(
        self,
        limit: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        max_queue: int = 0,
        groups: int = 1,
        next_end: Callable[[], float | None] = lambda: None,
    ) -> None:
        """max_queue: how many requests may wait; groups: API keys; next_end: see `RetryTimes`."""
        self.limit = limit
        self.draining = False
        self._clock = clock
        self._out = Shares(limit, groups)
        self._open: dict[Permit, None] = {}  # granted, the oldest first
        self._line = Shares(max_queue, groups)
        self._lines: dict[int, deque[Permit]] = {}  # group -> those that wait, first come first
        self._line_bytes = 0
        self._granted: dict[int, int] = {}  # group -> number of its last grant
        self._grants = 0
        self._times = RetryTimes(limit, clock, next_end)
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def taken(self) -> int:
        return self._out.total

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return self._line.total

    @property
    def largest(self) -> int:
        """So many permits one request can have: less than all where several API keys share them."""
        return self._out.largest

    def check(self, group: int = 0, size: int = 0) -> None:
        """Refuse early what `take` would refuse: costs nothing, so it is done before a body is read."""
        if self.draining:
            raise _shutting_down()
        if not self._may_wait(group, size) and not (self._out.allows(group, 1) and group not in self._lines):
            raise self._overloaded(1)

    def take(self, count: int, group: int = 0, *, size: int = 0, instead_of: Permit | None = None) -> Permit:
        """`count` permits, granted at once or in line for them: then `wait`. Raises OverloadedError.

        instead_of: what the request has so far. It goes back: those who keep some while they wait for more could wait
        for each other for ever. For that the request is the next of its group.
        """
        if instead_of is not None:
            self._put_back(instead_of)
        if self.draining:
            raise _shutting_down()
        permit = Permit(group, count, size)
        line = self._lines.setdefault(group, deque())
        line.insert(0 if instead_of is not None else len(line), permit)
        self._grant()
        if permit.since is None:
            if count > self.largest or not self._may_wait(group, size):
                self._leave(permit)
                raise self._overloaded(count)
            permit.news = asyncio.get_running_loop().create_future()
            self._line.take(group, 1)
            self._line_bytes += size
        return permit

    async def wait(self, permit: Permit) -> None:
        """Until it is granted. Cancelling gives it back. Raises ShuttingDownError."""
        if permit.news is None:
            return
        try:
            await permit.news
        except asyncio.CancelledError:
            if permit.since is not None:
                self._put_back(permit)
                self._grant()
            elif not permit.news.done() or permit.news.cancelled():
                self._leave_line(permit)
            raise

    def give_back(self, permit: Permit) -> None:
        """The request has ended."""
        assert permit.since is not None
        self._times.ended(self._clock() - permit.since, permit.count, max(permit.taken, self.taken))
        self._put_back(permit)
        self._grant()

    def drain(self) -> None:
        """Grant nothing any more; those that wait are told to go elsewhere."""
        self.draining = True
        for permit in [permit for line in self._lines.values() for permit in line]:
            self._leave_line(permit)
            if permit.news is not None and not permit.news.done():
                permit.news.set_exception(_shutting_down())

    async def drained(self) -> None:
        """Returns when no permit is out."""
        await self._empty.wait()

    def _may_wait(self, group: int, size: int) -> bool:
        return self._line.allows(group, 1) and self._line_bytes + size <= QUEUE_BYTES

    def _grant(self) -> None:
        """Give what is free to those in line: the group that holds least is next; if it does not fit, nobody overtakes.

        But for permits that are kept for a group.
        """
        while not self.draining:
            blocked = False
            for group in sorted(self._lines, key=lambda group: (self._out.held[group], self._granted.get(group, 0))):
                permit = self._lines[group][0]
                if (not blocked or self._out.is_own(group, permit.count)) and self._out.allows(group, permit.count):
                    self._leave_line(permit)
                    self._take(permit)
                    break
                blocked = True
            else:
                return

    def _take(self, permit: Permit) -> None:
        permit.since = self._clock()
        self._out.take(permit.group, permit.count)
        permit.taken = self.taken
        self._open[permit] = None
        self._grants += 1
        self._granted[permit.group] = self._grants
        self._empty.clear()
        if permit.news is not None and not permit.news.done():
            permit.news.set_result(None)

    def _put_back(self, permit: Permit) -> None:
        del self._open[permit]
        self._out.give_back(permit.group, permit.count)
        permit.since = None
        if not self._out.total:
            self._empty.set()

    def _leave_line(self, permit: Permit) -> None:
        self._leave(permit)
        if permit.news is not None:
            self._line.give_back(permit.group, 1)
            self._line_bytes -= permit.size

    def _leave(self, permit: Permit) -> None:
        line = self._lines[permit.group]
        line.remove(permit)
        if not line:
            del self._lines[permit.group]

    def _overloaded(self, count: int) -> OverloadedError:
        wanted = sum(permit.count for line in self._lines.values() for permit in line)
        oldest = next(iter(self._open)).since if self._open else None
        seconds = self._times.tell(count, self._clock() if oldest is None else oldest, wanted)
        milliseconds = round(seconds * 1000)
        error = OverloadedError()
        error.headers["retry-after"] = str(math.ceil(milliseconds / 1000))
        error.headers["retry-after-ms"] = str(milliseconds)
        return error


def check_samples(permits: Permits, samples: int, prompts: int, field: str) -> bool:
    """False: there are more samples than permits, which is validation's to refuse; else see `Call.take_samples`."""
    if samples > permits.limit:
        return False
    if prompts == 1 and samples > permits.largest:
        raise ValidationError(
            f"{samples} samples are more than the {permits.largest} that one request can have while there are several "
            "API keys (--max-concurrent-requests): ask for fewer",
            param="n",
        )
    if samples * prompts > permits.largest:
        each = f" with {samples} samples each" if samples > 1 else ""
        raise ValidationError(
            f"`{field}` holds {prompts} prompts{each}: the server takes {permits.largest} at once "
            "(--max-concurrent-requests), so send them in several requests",
            param=field,
        )
    return True


def _shutting_down() -> ShuttingDownError:
    error = ShuttingDownError()
    error.headers["connection"] = "close"
    return error
