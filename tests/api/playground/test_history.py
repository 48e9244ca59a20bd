"""What is kept of requests and seconds, and what is concluded from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tgi.api.playground.history import KEPT_ERRORS, KEPT_REQUESTS, KEPT_SECONDS, History, Record, Second
from tgi.api.playground.reasons import reasons
from tgi.messages import Begun, StepStats

LIMITS = (8, 100)
START = 1000.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def record(
    number: int, arrived: float, scheduled: float | None, first: float | None, ended: float | None, **more: Any
) -> Record:
    """Permitted and validated on arrival unless `more` says otherwise; None: it has not happened."""
    times = {"permitted": arrived, "validated": arrived, "scheduled": scheduled, "first_token": first, "ended": ended}
    moments = {name: 0.0 if moment is None else START + moment for name, moment in (times | more).items()}
    return Record(number, "chat", 0, START + arrived, 0.0, **moments)


def kinds(
    one: Record, *others: Record, seconds: tuple[Second, ...] = (), now: float = 0.0
) -> list[tuple[str, float, list[int]]]:
    later = [replace(second, at=int(START) + second.at) for second in seconds]
    return [
        (reason.kind, reason.seconds, reason.by) for reason in reasons(one, [one, *others], later, LIMITS, START + now)
    ]


def test_everything_is_bounded() -> None:
    clock = Clock()
    history = History(clock)
    for _ in range(2000):
        clock.now += 1
        history.step(StepStats(running=1))
        history.end(history.begin("chat", 0), "validation", "x" * 10_000)
    assert (len(history.ended), len(history.errors), len(history.seconds)) == (KEPT_REQUESTS, KEPT_ERRORS, KEPT_SECONDS)
    assert len(history.errors[-1].message) <= 300
    assert not history.open


def test_steps_of_a_second_are_summed() -> None:
    clock = Clock()
    history = History(clock)
    for prefill, running in ((100, 3), (0, 5)):
        history.step(
            StepStats(scheduled_prefill_tokens=prefill, scheduled_decode_tokens=2, running=running, total_s=0.1)
        )
    history.step(StepStats(running=4))  # a heartbeat is no step
    (second,) = history.seconds
    assert (second.steps, second.prefill_tokens, second.decode_tokens, second.running) == (2, 100, 4, 5)
    assert second.busy_s == pytest.approx(0.2)


def test_alone_nothing_held_it_up() -> None:
    assert kinds(record(1, 0, 0.01, 0.04, 1)) == []
    assert kinds(record(1, 0, 0.0, 2.0, 3)) == [("own_prompt", 2.0, [])]


def test_a_line_for_permits() -> None:
    waited = record(2, 0, 3.0, 3.0, 4, permitted=3.0, validated=3.0)
    waited.waits = True
    assert kinds(waited, record(1, -5, -5, -4, 3)) == [("permits", 3.0, [1])]
    slow_body = record(2, 0, 3.0, 3.0, 4, permitted=3.0, validated=3.0)
    assert kinds(slow_body, record(1, -5, -5, -4, 3)) == []


def test_a_full_batch_a_full_cache_and_prompts_before() -> None:
    waited = record(2, 0, 2.0, 2.0, 3)
    busy = record(1, -5, -5, -4, 2.5)
    for kind, second in (
        ("batch_full", Second(1, running=8, free_blocks=50)),
        ("cache_full", Second(1, running=2, free_blocks=1)),
        ("prompts_before", Second(1, running=2, free_blocks=50)),
    ):
        assert kinds(waited, busy, seconds=(second,)) == [(kind, 2.0, [1])]


def test_one_that_was_hardly_there_held_nobody_up() -> None:
    """Two that come at the same moment: each runs a moment before the other, after a wait for something else."""
    one, twin = record(1, 0, 2.0, 2.5, 3), record(2, 0, 1.99, 2.01, 3)
    assert kinds(one, twin) == [("queue", 2.0, []), ("shared_prefill", 0.5, [2])]
    assert kinds(record(1, 0, 0.0, 2.0, 2.0), record(2, 1.99, 1.99, 2.5, 3)) == [("own_prompt", 2.0, [])]


def test_those_whose_prompts_were_read_are_named_before_those_who_only_streamed() -> None:
    reading, streaming = record(1, -1, -1, 1.5, 9), record(3, -9, -9, -8, 9)
    assert kinds(record(2, 0, 2.0, 2.0, 3), reading, streaming)[0] == ("prompts_before", 2.0, [1])


def test_prompts_of_others_while_it_streams() -> None:
    streams = record(1, 0, 0.0, 0.01, 10)
    assert kinds(streams, record(2, 3, 3, 5, 12), record(3, 20, 20, 21, 22)) == [("prompts_between", 2.0, [2])]


def test_a_preemption_in_its_time() -> None:
    assert kinds(record(1, 0, 0, 0.01, 5), seconds=(Second(3, preemptions=1),)) == [("preempted", 0.0, [])]
    assert kinds(record(1, 0, 0, 0.01, 5), seconds=(Second(9, preemptions=1),)) == []


def test_an_open_request_is_held_up_by_open_ones() -> None:
    """Of each what is known at that moment: a prompt that is still read, a stream that goes on."""
    reading, streaming = record(1, 0.5, 0.5, None, None), record(3, -9, -9, -8.99, None)
    queued = record(2, 1, None, None, None)
    second = Second(2, running=2, free_blocks=50)
    assert kinds(queued, reading, streaming, seconds=(second,), now=4.0) == [("prompts_before", 3.0, [1])]
    assert kinds(reading, queued, streaming, now=4.0) == [("shared_prefill", 3.5, [3])]
    assert kinds(streaming, queued, reading, now=4.0) == [("prompts_between", 3.5, [1])]
    in_line = Record(4, "chat", 0, START + 1.0, 0.0, waits=True)
    assert kinds(in_line, streaming, reading, now=4.0) == [("permits", 3.0, [3, 1])]


def test_one_that_left_the_queue_unread_tells_what_it_waited_for() -> None:
    left, busy = record(2, 0, None, None, 2.0), record(1, -5, -5, -4, 2.5)
    assert kinds(left, busy, seconds=(Second(1, running=8, free_blocks=50),)) == [("batch_full", 2.0, [1])]


def test_news_of_the_engine_is_of_open_requests() -> None:
    clock = Clock()
    history = History(clock)
    one = history.begin("chat", 0)
    history.follow(one, 7)
    history.begun(Begun([7, 8], 1001.0))
    clock.now = 1002.0
    history.got_first_token(7)
    history.got_first_token(8)
    history.begun(Begun([7], 1003.0))
    assert (one.scheduled, one.first_token) == (1001.0, 1002.0)
    history.end(one, "left")
    history.begun(Begun([7], 1005.0))
    unlisted = history.begin("health", 0, listed=False)
    history.follow(unlisted, 9)
    assert one.scheduled == 1001.0 and not history._by_request


def test_few_are_named_and_all_are_counted() -> None:
    others = [record(number, -1, -1, 1, 1 + number) for number in range(2, 30)]
    (reason,) = reasons(record(1, 0, 2.0, 2.0, 2.01), others, (), LIMITS)
    assert (len(reason.by), reason.others) == (8, 28)
