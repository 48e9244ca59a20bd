"""What is kept of requests and seconds, and what is concluded from it."""

from __future__ import annotations

import pytest

from tgi.api.playground.history import KEPT_ERRORS, KEPT_REQUESTS, KEPT_SECONDS, History, Record, Second
from tgi.api.playground.reasons import reasons
from tgi.messages import StepStats

LIMITS = (8, 100)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def record(number: int, arrived: float, scheduled: float, first: float, ended: float, **more: float) -> Record:
    """Permitted and validated on arrival unless `more` says otherwise."""
    times = {"permitted": arrived, "validated": arrived} | more
    return Record(number, "chat", 0, arrived, 0.0, scheduled=scheduled, first_token=first, ended=ended, **times)


def kinds(one: Record, *others: Record, seconds: tuple[Second, ...] = ()) -> list[tuple[str, float, list[int]]]:
    return [(reason.kind, reason.seconds, reason.by) for reason in reasons(one, [one, *others], seconds, LIMITS)]


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
    assert kinds(waited, record(1, -5, -5, -4, 3)) == [("permits", 3.0, [1])]


def test_a_full_batch_a_full_cache_and_prompts_before() -> None:
    waited = record(2, 0, 2.0, 2.0, 3)
    busy = record(1, -5, -5, -4, 2.5)
    for kind, second in (
        ("batch_full", Second(1, running=8, free_blocks=50)),
        ("cache_full", Second(1, running=2, free_blocks=1)),
        ("prompts_before", Second(1, running=2, free_blocks=50)),
    ):
        assert kinds(waited, busy, seconds=(second,)) == [(kind, 2.0, [1])]


def test_those_whose_prompts_were_read_are_named_before_those_who_only_streamed() -> None:
    reading, streaming = record(1, -1, -1, 1.5, 9), record(3, -9, -9, -8, 9)
    assert kinds(record(2, 0, 2.0, 2.0, 3), reading, streaming)[0] == ("prompts_before", 2.0, [1])


def test_prompts_of_others_while_it_streams() -> None:
    streams = record(1, 0, 0.0, 0.01, 10)
    assert kinds(streams, record(2, 3, 3, 5, 12), record(3, 20, 20, 21, 22)) == [("prompts_between", 2.0, [2])]


def test_a_preemption_in_its_time() -> None:
    assert kinds(record(1, 0, 0, 0.01, 5), seconds=(Second(3, preemptions=1),)) == [("preempted", 0.0, [])]
    assert kinds(record(1, 0, 0, 0.01, 5), seconds=(Second(9, preemptions=1),)) == []


def test_few_are_named_and_all_are_counted() -> None:
    others = [record(number, -1, -1, 1, 1 + number) for number in range(2, 30)]
    (reason,) = reasons(record(1, 0, 2.0, 2.0, 2.01), others, (), LIMITS)
    assert (len(reason.by), reason.others) == (8, 28)
