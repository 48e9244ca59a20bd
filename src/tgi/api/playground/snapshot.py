"""`/dashboard/data`: the history and the state of the server as JSON.

Owns its shape. Times of requests are seconds since the epoch or since the request's arrival. There is no text of
requests in it, and an error's message is only for the API key whose request it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import islice

import msgspec

from tgi.api.playground.history import History, Record, Second
from tgi.api.playground.reasons import Reason, reasons
from tgi.api.state import Api

SHOWN_REQUESTS = 100
SHOWN_LATENCIES = 500


class Now(msgspec.Struct):
    """The server at this moment."""

    time: float
    """Seconds since the epoch."""
    uptime_s: float
    healthy: bool
    last_step_age_s: float
    running: int
    waiting: int
    permits_taken: int
    permits: int
    in_line: int
    """Requests that wait for a permit."""
    running_tokens: int
    free_blocks: int
    num_blocks: int
    batch: int
    """Most sequences that run at once."""


class Series(msgspec.Struct):
    """One value for each second, the oldest first; the last second is not over."""

    decode_tokens: list[int]
    prefill_tokens: list[int]
    query_tokens: list[int]
    hit_tokens: list[int]
    preemptions: list[int]
    running: list[int]
    waiting: list[int]
    free_blocks: list[int]
    busy_s: list[float]
    slowest_step_s: list[float]


class RequestTimes(msgspec.Struct, omit_defaults=True):
    """One of the last requests; seconds are since its arrival."""

    number: int
    route: str
    arrived_at: float
    outcome: str
    """Empty: it is open; ok, left (by the client), or the kind of its error."""
    yours: bool
    """Of the API key that asks."""
    permitted_s: float | None = None
    validated_s: float | None = None
    scheduled_s: float | None = None
    first_token_s: float | None = None
    ended_s: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    samples: int = 0
    streamed: bool = False
    finish: str = ""
    message: str = ""
    reasons: list[Reason] | None = None
    """Of the chosen one."""


class Latency(msgspec.Struct, array_like=True):
    """How fast a request that has ended was."""

    ended_at: float
    """Seconds since the epoch."""
    first_token_s: float
    between_tokens_s: float | None
    """Mean of its samples; None where none had two tokens."""


class Snapshot(msgspec.Struct):
    """All of it."""

    now: Now
    seconds: Series
    latencies: list[Latency]
    """Of requests that ended in that time, the newest first; more of them than are listed."""
    open: list[RequestTimes]
    requests: list[RequestTimes]
    """The newest first."""
    chosen: RequestTimes | None
    """The one that was asked for, with reasons: to find those looks at all that are kept."""
    errors: list[RequestTimes]


def snapshot(api: Api, seconds: int, group: int, chosen: int = 0) -> Snapshot:
    """`seconds`: length of the series; `group`: number of the key that asks; `chosen`: a request's number."""
    history = api.history
    limits = (api.service.engine.info.max_batch_size, api.service.engine.info.num_blocks)
    return Snapshot(
        _now(api, history),
        _series(history.seconds, int(time.monotonic()), seconds, limits[1]),
        _latencies(history.ended, time.monotonic() - seconds),
        [_times(one, group) for one in islice(history.open.values(), SHOWN_REQUESTS)],
        [_times(one, group) for one in islice(reversed(history.ended), SHOWN_REQUESTS)],
        _chosen(history, chosen, group, limits),
        [_times(one, group) for one in reversed(history.errors)],
    )


def _chosen(history: History, number: int, group: int, limits: tuple[int, int]) -> RequestTimes | None:
    everything = [*history.ended, *history.open.values()]
    found = next((one for one in (*everything, *history.errors) if one.number == number), None)
    return found and _times(found, group, reasons(found, everything, history.seconds, limits, time.monotonic()))


def _now(api: Api, history: History) -> Now:
    state, stats, info = api.service.health(), api.service.engine.stats, api.service.engine.info
    return Now(
        time=round(time.time(), 3),
        uptime_s=round(time.monotonic() - history.started, 1),
        healthy=state.ok and not api.permits.draining,
        last_step_age_s=state.last_step_age_s,
        running=stats.running,
        waiting=stats.waiting,
        permits_taken=api.permits.taken,
        permits=api.permits.limit,
        in_line=api.permits.waiting,
        running_tokens=stats.running_tokens,
        free_blocks=stats.free_blocks if history.seconds else info.num_blocks,
        num_blocks=info.num_blocks,
        batch=info.max_batch_size,
    )


def _series(kept: Iterable[Second], now: int, count: int, blocks: int) -> Series:
    """A second without news is one within a step, since an idle engine tells of itself each second."""
    by_time = {second.at: second for second in kept if second.at > now - count}
    line: list[Second] = []
    last = Second(0, free_blocks=blocks)
    for at in range(now - count + 1, now + 1):
        held = Second(at, running=last.running, waiting=last.waiting, free_blocks=last.free_blocks)
        last = by_time.get(at) or held
        line.append(last)
    fields = {name: [getattr(second, name) for second in line] for name in Series.__struct_fields__}
    fields["slowest_step_s"] = [round(value, 4) for value in fields["slowest_step_s"]]
    fields["busy_s"] = _spread(fields["busy_s"])
    return Series(**fields)


def _spread(busy: list[float]) -> list[float]:
    """A step is told of when it ends: what is more than a second of it belongs to the seconds before."""
    over, spread = 0.0, []
    for value in reversed(busy):
        over += value
        spread.append(round(min(over, 1.0), 4))
        over -= min(over, 1.0)
    return spread[::-1]


def _latencies(ended: Sequence[Record], since: float) -> list[Latency]:
    found = []
    for one in islice((one for one in reversed(ended) if one.samples and one.ended >= since), SHOWN_LATENCIES):
        after_first = one.generated_tokens / one.samples - 1
        between = round((one.ended - one.first_token) / after_first, 5) if after_first > 0 else None
        at = round(one.arrived_at + one.ended - one.arrived, 2)
        found.append(Latency(at, round(one.first_token - one.arrived, 4), between))
    return found


def _times(record: Record, group: int, why: list[Reason] | None = None) -> RequestTimes:
    yours = record.group == group
    return RequestTimes(
        number=record.number,
        route=record.route,
        arrived_at=round(record.arrived_at, 3),
        outcome=record.outcome,
        yours=yours,
        permitted_s=_since(record, record.permitted),
        validated_s=_since(record, record.validated),
        scheduled_s=_since(record, record.scheduled),
        first_token_s=_since(record, record.first_token),
        ended_s=_since(record, record.ended),
        prompt_tokens=record.prompt_tokens,
        cached_tokens=record.cached_tokens,
        generated_tokens=record.generated_tokens,
        samples=record.samples,
        streamed=record.streamed,
        finish=record.finish,
        message=record.message if yours else "",
        reasons=why,
    )


def _since(record: Record, moment: float) -> float | None:
    return round(max(moment - record.arrived, 0.0), 4) if moment else None
