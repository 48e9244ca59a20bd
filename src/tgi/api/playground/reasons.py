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
FULL = 0.05
"""Share of free blocks at which the cache counts as full."""


class Reason(msgspec.Struct):
    """A part of a request's time that others took, or that was its own work."""

    kind: str
    """permits, batch_full, cache_full, prompts_before, own_prompt, shared_prefill, prompts_between or preempted."""
    seconds: float
    by: list[int] = []
    """Numbers of the requests that had to do with it."""
    others: int = 0
    """How many there were in all."""


def reasons(
    record: Record, others: Iterable[Record], seconds: Sequence[Second], limits: tuple[int, int]
) -> list[Reason]:
    """Of a request that has ended; `limits`: most sequences of a batch, blocks of the cache."""
    if not record.first_token:
        return []
    rest = [one for one in others if one is not record and one.arrived < record.ended]
    found = [*_in_line(record, rest), *_in_queue(record, rest, seconds, limits), *_reading(record, rest)]
    found += _between(record, rest)
    if any(second.preemptions for second in _within(seconds, record.scheduled, record.ended)):
        found.append(Reason("preempted", 0.0))
    return sorted(found, key=lambda reason: -reason.seconds)


def _in_line(record: Record, others: list[Record]) -> list[Reason]:
    waited = record.permitted - record.arrived
    if waited < SHORT_S:
        return []
    before = {one: _overlap(one.arrived, _end(one), record.arrived, record.permitted) for one in others}
    return [_reason("permits", waited, before)]


def _in_queue(record: Record, others: list[Record], seconds: Sequence[Second], limits: tuple[int, int]) -> list[Reason]:
    waited = record.scheduled - record.validated
    if waited < SHORT_S:
        return []
    batch, blocks = limits
    there = _within(seconds, record.validated, record.scheduled)
    span = (record.validated, record.scheduled)
    running = {one: _overlap(one.scheduled, _end(one), *span) for one in others if one.scheduled}
    if any(second.running >= batch for second in there):
        return [_reason("batch_full", waited, running)]
    if any(second.free_blocks < FULL * blocks for second in there):
        return [_reason("cache_full", waited, running)]
    prompts = {one: _overlap(one.scheduled, one.first_token, *span) for one in others if one.first_token}
    return [_reason("prompts_before", waited, prompts if any(prompts.values()) else running)]


def _reading(record: Record, others: list[Record]) -> list[Reason]:
    took = record.first_token - record.scheduled
    if took < SHORT_S:
        return []
    span = (record.scheduled, record.first_token)
    shared = {one: _overlap(one.scheduled, _end(one), *span) for one in others if one.scheduled}
    return [_reason("shared_prefill" if any(shared.values()) else "own_prompt", took, shared)]


def _between(record: Record, others: list[Record]) -> list[Reason]:
    """Prompts of others that were read while this one streamed."""
    span = (record.first_token, record.ended)
    prompts = {one: _overlap(one.scheduled, one.first_token, *span) for one in others if one.first_token}
    took = min(sum(prompts.values()), record.ended - record.first_token)
    return [] if took < SHORT_S else [_reason("prompts_between", took, prompts)]


def _reason(kind: str, seconds: float, times: dict[Record, float]) -> Reason:
    by = sorted((one for one, time in times.items() if time > 0), key=lambda one: -times[one])
    return Reason(kind, round(seconds, 4), [one.number for one in by[:NAMED]], len(by))


def _end(record: Record) -> float:
    return record.ended or float("inf")


def _overlap(begin: float, end: float, since: float, until: float) -> float:
    return max(0.0, min(end, until) - max(begin, since))


def _within(seconds: Sequence[Second], since: float, until: float) -> list[Second]:
    return [second for second in seconds if since - 1 < second.at <= until]
