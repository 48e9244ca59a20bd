"""The last requests with their times, and the last minutes second by second: bounded, in memory, without any text.

Owns what is kept and for how long. `server.call` reports requests, the engine's messages come through `step`. Does not
own what is concluded from it (`reasons`) nor its JSON (`snapshot`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tgi.messages import Begun, StepStats
from tgi.serving.types import Completion, Timings

KEPT_REQUESTS = 1000
KEPT_ERRORS = 50
KEPT_SECONDS = 900
MOST_OPEN = 4096
"""Open requests that are followed; there are as many as permits, and those in line."""
MESSAGE_LENGTH = 300
"""Characters of an error's message."""


@dataclass(slots=True, eq=False)
class Record:
    """One request; times are `time.monotonic()`, 0.0 where something has not happened."""

    number: int
    route: str
    group: int
    arrived: float
    arrived_at: float
    """Seconds since the epoch."""
    permitted: float = 0.0
    """When it got its permit, for good."""
    waits: bool = False
    """It had to wait for one, or still does."""
    validated: float = 0.0
    scheduled: float = 0.0
    """When it first ran."""
    first_token: float = 0.0
    ended: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    samples: int = 0
    """Those that have ended."""
    streamed: bool = False
    finish: str = ""
    outcome: str = ""
    """Empty while it is open; then ok, left, or the kind of its error."""
    message: str = ""
    request_ids: list[int] = field(default_factory=list)
    """What the engine knows it by: one for each prompt."""

    def finished(self, completion: Completion) -> None:
        """One of its samples has ended."""
        times = completion.timings
        end = self.arrived + times.total
        first = self.arrived + times.time_to_first_token
        self.scheduled = min(self.scheduled or end, end - times.inference)
        self.first_token = min(self.first_token or first, first)
        self.cached_tokens = max(self.cached_tokens, completion.cached_tokens)
        self.generated_tokens += completion.generated_tokens
        self.finish = completion.finish_reason
        self.samples += 1

    def took(self, times: Timings) -> None:
        """An answer without samples has ended: all of its time in the engine went into its prompt."""
        self.first_token = self.arrived + times.total
        self.scheduled = self.first_token - times.inference
        self.validated = self.validated or self.arrived + times.validation


@dataclass(slots=True)
class Second:
    """What the engine did in one second."""

    at: int
    steps: int = 0
    decode_tokens: int = 0
    prefill_tokens: int = 0
    query_tokens: int = 0
    hit_tokens: int = 0
    preemptions: int = 0
    running: int = 0
    """Most at once; so is `waiting`."""
    waiting: int = 0
    free_blocks: int = 0
    """Fewest."""
    busy_s: float = 0.0
    slowest_step_s: float = 0.0


class History:
    """Of one server, for the event loop's thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.open: dict[int, Record] = {}
        self.ended: deque[Record] = deque(maxlen=KEPT_REQUESTS)
        self.errors: deque[Record] = deque(maxlen=KEPT_ERRORS)
        """Kept apart: many good requests must not push the few bad ones out."""
        self.seconds: deque[Second] = deque(maxlen=KEPT_SECONDS)
        self.started = clock()
        self._clock = clock
        self._number = 0
        self._by_request: dict[int, Record] = {}  # open ones

    def begin(self, route: str, group: int, *, listed: bool = True, arrived: float | None = None) -> Record:
        """A request has come, now or at `arrived`; one that is not `listed` leaves no trace."""
        arrived = self._clock() if arrived is None else arrived
        if not listed:
            return Record(0, route, group, arrived, time.time())
        self._number += 1
        record = Record(self._number, route, group, arrived, time.time())
        if len(self.open) < MOST_OPEN:
            self.open[record.number] = record
        return record

    def end(self, record: Record, outcome: str, message: str = "") -> None:
        if not record.number:
            return
        self.open.pop(record.number, None)
        for request_id in record.request_ids:
            self._by_request.pop(request_id, None)
        record.ended, record.outcome, record.message = self._clock(), outcome, message[:MESSAGE_LENGTH]
        self.ended.append(record)
        if outcome not in ("ok", "left"):
            self.errors.append(record)

    def follow(self, record: Record, request_id: int) -> None:
        """News that the engine has of this request is the record's, while it is open."""
        if record.number in self.open:
            record.request_ids.append(request_id)
            self._by_request[request_id] = record

    def begun(self, news: Begun) -> None:
        """Requests have left the engine's queue."""
        for request_id in news.request_ids:
            if (record := self._by_request.get(request_id)) is not None:
                record.scheduled = record.scheduled or news.at

    def got_first_token(self, request_id: int) -> None:
        if (record := self._by_request.get(request_id)) is not None:
            record.first_token = record.first_token or self._clock()

    def step(self, stats: StepStats) -> None:
        """News of a step, or of an idle second."""
        now = int(self._clock())
        if not self.seconds or self.seconds[-1].at != now:
            self.seconds.append(Second(now, free_blocks=stats.free_blocks))
        second = self.seconds[-1]
        second.running = max(second.running, stats.running)
        second.waiting = max(second.waiting, stats.waiting)
        second.free_blocks = min(second.free_blocks, stats.free_blocks)
        if stats.scheduled_prefill_tokens or stats.scheduled_decode_tokens:
            second.steps += 1
            second.decode_tokens += stats.scheduled_decode_tokens
            second.prefill_tokens += stats.scheduled_prefill_tokens
            second.query_tokens += stats.prefix_query_tokens
            second.hit_tokens += stats.prefix_hit_tokens
            second.preemptions += stats.preemptions
            second.busy_s += stats.total_s
            second.slowest_step_s = max(second.slowest_step_s, stats.total_s)
