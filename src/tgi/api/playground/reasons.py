"""Why a request took as long as it did: which part of its time, and which other requests had it.

Pure functions over `history`. Overlap in time is what they know: a request that is named was there, with that much to
do, in those seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from tgi.api.playground.history import Record, Second

NAMED = 8
"""Requests that a reason names, at most; those with most time first."""
SHORT_S = 0.05
"""Less than that is not worth a reason."""
WORTH = 0.05
"""Share of a wait in which another request must have been there to be named for it, where that is less than SHORT_S."""
FULL = 0.05
"""Share of free blocks at which the cache counts as full."""


class Reason(msgspec.Struct):
    """A part of a request's time that others took, or that was its own work."""

    kind: str
    """permits, batch_full, cache_full, prompts_before, queue, own_prompt, shared_prefill, prompts_between or preempted;
    queue: for no request that is known, as while a grammar is compiled."""
    seconds: float
    by: list[int] = []
    """Numbers of the requests that had to do with it."""
    others: int = 0
    """How many there were in all."""


def reasons(
    record: Record, others: Iterable[Record], seconds: Sequence[Second], limits: tuple[int, int], now: float = 0.0
) -> list[Reason]:
    """Of a request that has ended, or of an open one up to `now`.

    `limits`: most sequences of a batch, blocks of the cache; `now`: `time.monotonic()`.
    """
    until = record.ended or now
    rest = [one for one in others if one is not record and one.arrived < until]
    found = [*_in_line(record, rest, until), *_in_queue(record, rest, seconds, limits, until)]
    found += [*_reading(record, rest, until), *_between(record, rest, until)]
    if record.scheduled and any(second.preemptions for second in _within(seconds, record.scheduled, until)):
        found.append(Reason("preempted", 0.0))
    return sorted(found, key=lambda reason: -reason.seconds)


def _in_line(record: Record, others: list[Record], until: float) -> list[Reason]:
    span = (record.arrived, record.permitted or until)
    waited = span[1] - span[0]
    if waited < SHORT_S or not record.waits:
        return []
    return [_reason("permits", waited, {one: _overlap(one.arrived, _end(one), span) for one in others})]


def _in_queue(
    record: Record, others: list[Record], seconds: Sequence[Second], limits: tuple[int, int], until: float
) -> list[Reason]:
    span = (record.validated, record.scheduled or until)
    waited = span[1] - span[0]
    if waited < SHORT_S or not record.validated:
        return []
    batch, blocks = limits
    there = _within(seconds, *span)
    running = {one: _overlap(one.scheduled, _end(one), span) for one in others if one.scheduled}
    if any(second.running >= batch for second in there):
        return [_reason("batch_full", waited, running)]
    if any(second.free_blocks < FULL * blocks for second in there):
        return [_reason("cache_full", waited, running)]
    prompts = {one: _overlap(one.scheduled, _read(one), span) for one in others if one.scheduled}
    found = [_reason("prompts_before", waited, times) for times in (prompts, running)]
    return [next((reason for reason in found if reason.by), Reason("queue", found[0].seconds))]


def _reading(record: Record, others: list[Record], until: float) -> list[Reason]:
    span = (record.scheduled, record.first_token or until)
    took = span[1] - span[0]
    if took < SHORT_S or not record.scheduled:
        return []
    shared = {one: _overlap(one.scheduled, _end(one), span) for one in others if one.scheduled}
    found = _reason("shared_prefill", took, shared)
    return [found if found.by else Reason("own_prompt", found.seconds)]


def _between(record: Record, others: list[Record], until: float) -> list[Reason]:
    """Prompts of others that were read while this one streamed."""
    if not record.first_token:
        return []
    span = (record.first_token, until)
    prompts = {one: _overlap(one.scheduled, _read(one), span) for one in others if one.scheduled}
    took = min(sum(prompts.values()), span[1] - span[0])
    return [] if took < SHORT_S else [_reason("prompts_between", took, prompts)]


def _reason(kind: str, seconds: float, times: dict[Record, float]) -> Reason:
    least = min(SHORT_S, WORTH * seconds)
    by = sorted((one for one, time in times.items() if time > least), key=lambda one: -times[one])
    return Reason(kind, round(seconds, 4), [one.number for one in by[:NAMED]], len(by))


def _end(record: Record) -> float:
    return record.ended or float("inf")


def _read(record: Record) -> float:
    """When its prompt had been read, or it was given up."""
    return record.first_token or _end(record)


def _overlap(begin: float, end: float, span: tuple[float, float]) -> float:
    return max(0.0, min(end, span[1]) - max(begin, span[0]))


def _within(seconds: Sequence[Second], since: float, until: float) -> list[Second]:
    return [second for second in seconds if since - 1 < second.at <= until]
