"""Permits by themselves: who gets one, in which order, and when the others are told to come back."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import Counter
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest

from tgi.api.server.admission import QUEUE_BYTES, Permit, Permits
from tgi.api.server.retry_times import FIRST_GUESS_S, LONGEST_S
from tgi.api.server.shares import Shares
from tgi.errors import OverloadedError, ShuttingDownError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def retry_after(permits: Permits, count: int = 1) -> float:
    with pytest.raises(OverloadedError) as refused:
        permits.take(count)
    seconds, milliseconds = (refused.value.headers[name] for name in ("retry-after", "retry-after-ms"))
    assert 0 <= int(seconds) - int(milliseconds) / 1000 < 1
    return int(milliseconds) / 1000


def steady(clock: Clock, limit: int, every: float) -> Permits:
    """One of `limit` permits has come free every so many seconds."""
    permits = Permits(limit, clock)
    turn(permits, clock, every, [permits.take(1) for _ in range(limit)], 64 + limit)
    return permits


def turn(permits: Permits, clock: Clock, every: float, out: list[Permit], times: int) -> None:
    """The oldest of `out` ends, another begins."""
    for _ in range(times):
        clock.now += every
        permits.give_back(out.pop(0))
        out.append(permits.take(1))


# --- the time to come back ----------------------------------------------------------------------


def test_retry_after_is_the_measured_drain_rate() -> None:
    permits = steady(Clock(), 4, every=4)
    assert 3 <= retry_after(permits) <= 5
    assert 6 <= retry_after(steady(Clock(), 4, every=4), 2) <= 10


def test_retry_after_counts_those_refused_before() -> None:
    clock = Clock()
    permits = Permits(4, clock)
    out = [permits.take(1) for _ in range(4)]
    turn(permits, clock, 2, out, 70)
    told = [retry_after(permits) for _ in range(10)]
    assert told == pytest.approx([2 * (number + 1) for number in range(10)], abs=1)
    turn(permits, clock, 2, out, 5)
    assert 10 <= retry_after(permits) <= 14, "five of ten have come back"
    turn(permits, clock, 2, out, 10)
    assert retry_after(permits) <= 4


@pytest.mark.parametrize("limit", [1, 4, 128])
def test_nobody_is_told_the_same_time(limit: int) -> None:
    permits = steady(Clock(), limit, every=1 / limit)
    told = [retry_after(permits) for _ in range(200)]
    within = [one for one in told if one < LONGEST_S / 2]
    assert len(set(within)) > 0.9 * len(within)
    if len(within) < 200:  # too many for a minute: spread over what clients believe, not all at its end
        late = sorted(set(told) - set(within))
        assert len(late) > 20 and LONGEST_S / 2 <= late[0] < median(late) < late[-1] <= LONGEST_S


def test_retry_after_without_a_measurement() -> None:
    """At first a guess; with nothing ending, as long as it has taken so far, at most a minute."""
    clock = Clock()
    permits = Permits(1, clock)
    permits.take(1)
    assert retry_after(permits) == FIRST_GUESS_S
    clock.now += 20
    assert retry_after(permits) == pytest.approx(20)
    clock.now += 10_000
    assert 20 < retry_after(permits) < 60


def test_what_the_engine_knows_counts() -> None:
    clock = Clock()
    permits = Permits(1, clock, next_end=lambda: 1.5)
    permits.take(1)
    assert retry_after(permits) == 1.5


Policy = Callable[[int, float, random.Random], float]


def openai_python(attempt: int, told: float, rng: random.Random) -> float:
    """Its default: two retries, after what the server says if that is at most a minute."""
    return told if 0 < told <= 60 else min(0.5 * 2**attempt, 8.0) * (1 - rng.random() / 4)


def ai_sdk(attempt: int, told: float, rng: random.Random) -> float:
    """Two retries, after what the server says if that is below a minute or its own time."""
    return told if told < max(60, 2 * 2**attempt) else 2 * 2**attempt


def lost(permits: Permits, clock: Clock, duration: Callable[[], float], policy: Policy, count: int, whole: bool) -> int:
    """How many of `count` requests at once are never admitted. whole: the client reads only whole seconds."""
    rng = random.Random(1)
    events: list[tuple[float, int, Any, int]] = [(clock.now + 0.0001 * n, n, None, 0) for n in range(count)]
    heapq.heapify(events)
    number, failed = count, 0
    while events:
        clock.now, _, permit, attempt = heapq.heappop(events)
        number += 1
        if permit is not None:
            permits.give_back(permit)
            continue
        try:
            taken = permits.take(1)
            heapq.heappush(events, (clock.now + duration(), number, taken, 0))
        except OverloadedError as error:
            told = int(error.headers["retry-after"]) if whole else int(error.headers["retry-after-ms"]) / 1000
            if attempt == 2:
                failed += 1
            else:
                back = clock.now + policy(attempt, told, rng) + rng.random() * 0.02
                heapq.heappush(events, (back, number, None, attempt + 1))
    return failed


@pytest.mark.parametrize("policy", [openai_python, ai_sdk])
@pytest.mark.parametrize("whole", [False, True], ids=["milliseconds", "seconds"])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("spread", [0.0, 0.5], ids=["alike", "mixed"])
@pytest.mark.parametrize("seconds", [0.2, 1.0, 5.0, 12.0])
def test_of_300_at_once_none_is_lost(policy: Policy, whole: bool, warm: bool, spread: float, seconds: float) -> None:
    """With 128 permits and nobody allowed to wait, by the time to come back alone."""
    rng, clock = random.Random(2), Clock()

    def duration() -> float:
        return seconds * rng.uniform(1 - spread, 1 + spread)

    permits = Permits(128, clock)
    if warm:
        for _ in range(3):
            out = [permits.take(1) for _ in range(20)]
            clock.now += duration()
            for permit in out:
                permits.give_back(permit)
    assert lost(permits, clock, duration, policy, 300, whole) == 0
    assert permits.taken == 0


@pytest.mark.parametrize("policy", [openai_python, ai_sdk])
@pytest.mark.parametrize("before", [1, 5, 20], ids=lambda count: f"{count} at once before")
@pytest.mark.parametrize("slower", [4.0, 12.0])
@pytest.mark.parametrize("seconds", [0.1, 0.35, 1.0])
def test_a_burst_takes_longer_than_what_was_alone(policy: Policy, before: int, slower: float, seconds: float) -> None:
    """What was measured while few were out says how long each took then."""
    clock = Clock()
    permits = Permits(128, clock)
    for _ in range(70):
        out = [permits.take(1) for _ in range(before)]
        clock.now += seconds
        for permit in out:
            permits.give_back(permit)
    rng = random.Random(3)
    assert lost(permits, clock, lambda: slower * seconds * rng.uniform(0.8, 1.0), policy, 300, whole=False) == 0


@pytest.mark.parametrize("seconds", [20.0, 40.0])
def test_the_pace_of_tokens_tells_when_answers_take_long(seconds: float) -> None:
    """Nothing has ended yet, but the engine knows how far its requests are."""
    clock = Clock()
    began = clock.now

    def next_end() -> float | None:
        gone = clock.now - began
        return None if gone < 1.0 else max(seconds - gone % seconds, 0.0)

    permits = Permits(128, clock, next_end=next_end)
    assert lost(permits, clock, lambda: seconds, openai_python, 240, whole=False) == 0


# --- the line -----------------------------------------------------------------------------------


async def order_of(permits: Permits, waiting: list[Permit], out: list[Permit]) -> list[int]:
    """Give permits back one by one; the numbers of `waiting` in the order in which they were granted."""
    order: list[int] = []
    held = list(out)
    while len(order) < len(waiting):
        assert held, "nobody has a permit and nobody gets one"
        permits.give_back(held.pop(0))
        for number, permit in enumerate(waiting):
            if permit.since is not None and number not in order:
                await permits.wait(permit)
                order.append(number)
                held.append(permit)
    return order


async def test_first_come_first_served() -> None:
    permits = Permits(2, max_queue=10)
    out = [permits.take(1), permits.take(1)]
    waiting = [permits.take(1) for _ in range(5)]
    assert [permit.since for permit in waiting] == [None] * 5
    assert permits.waiting == 5
    assert await order_of(permits, waiting, out) == [0, 1, 2, 3, 4]


async def test_a_large_request_is_not_overtaken() -> None:
    permits = Permits(4, max_queue=10)
    out = [permits.take(1) for _ in range(3)]
    waiting = [permits.take(4), permits.take(1)]
    assert permits.taken == 3, "one is free, and nobody overtakes"
    assert await order_of(permits, waiting, out) == [0, 1]


async def test_who_needs_more_lets_go_what_it_has() -> None:
    """Two requests with one of two permits each want both: one after the other, and nobody waits for ever."""
    permits = Permits(2, max_queue=10)
    first, second, third = permits.take(1), permits.take(1), permits.take(1)
    first = permits.take(2, instead_of=first)
    assert third.since is None and first.since is None, "it is the next, before those that came after it"
    second = permits.take(2, instead_of=second)
    granted = [permit for permit in (first, second) if permit.since is not None]
    assert len(granted) == 1
    permits.give_back(granted[0])
    assert sum(permit.since is not None for permit in (first, second)) == 1 + (granted[0].since is not None)


async def test_the_line_is_bounded_in_number_and_bytes() -> None:
    permits = Permits(1, max_queue=3)
    permits.take(1)
    for _ in range(3):
        permits.take(1)
    with pytest.raises(OverloadedError):
        permits.take(1)
    with pytest.raises(OverloadedError):
        permits.check()
    permits = Permits(1, max_queue=1000)
    permits.take(1)
    permits.take(1, size=QUEUE_BYTES - 10)
    with pytest.raises(OverloadedError):
        permits.take(1, size=11)
    permits.check(size=10)
    permits.take(1, size=10)


async def test_more_than_there_are_is_never_waited_for() -> None:
    permits = Permits(2, max_queue=10)
    with pytest.raises(OverloadedError):
        permits.take(3)


async def test_who_leaves_the_line_leaves_nothing() -> None:
    permits = Permits(1, max_queue=10)
    out = permits.take(1)
    first, second = permits.take(1, size=5), permits.take(1, size=5)
    leaving = asyncio.create_task(permits.wait(first))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert permits.waiting == 1
    late = asyncio.create_task(permits.wait(second))
    await asyncio.sleep(0)
    permits.give_back(out)  # granted, and at the same moment its client leaves
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    assert (permits.taken, permits.waiting) == (0, 0)
    await asyncio.wait_for(permits.drained(), 1)


async def test_draining_sends_those_in_line_away() -> None:
    permits = Permits(1, max_queue=10)
    out, waiting = permits.take(1), permits.take(1)
    task = asyncio.create_task(permits.wait(waiting))
    await asyncio.sleep(0)
    permits.drain()
    with pytest.raises(ShuttingDownError):
        await task
    with pytest.raises(ShuttingDownError):
        permits.take(1)
    permits.give_back(out)
    await asyncio.wait_for(permits.drained(), 1)


# --- several keys -------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "groups"), [(128, 2), (128, 5), (8, 2), (2, 2), (16, 1000)])
async def test_another_keys_first_finds_a_permit(limit: int, groups: int) -> None:
    permits = Permits(limit, max_queue=2000, groups=groups)
    for _ in range(1000):
        permits.take(1, group=0)
    assert permits.taken < limit and permits.waiting > 0
    for group in range(1, min(groups, 4, 1 + limit // 4) or 2):
        assert permits.take(1, group=group).since is not None


async def test_permits_become_equal_as_they_come_back() -> None:
    permits = Permits(16, max_queue=2000, groups=2)
    out = {0: [permits.take(1, 0) for _ in range(500)], 1: [permits.take(1, 1) for _ in range(500)]}
    rng = random.Random(3)
    for _ in range(200):
        held = [permit for line in out.values() for permit in line if permit.since is not None]
        permits.give_back(rng.choice(held))
    held_by = Counter(permit.group for line in out.values() for permit in line if permit.since is not None)
    assert held_by == {0: 8, 1: 8}


async def test_one_key_does_not_fill_the_line() -> None:
    permits = Permits(4, max_queue=8, groups=2)
    with pytest.raises(OverloadedError):
        for _ in range(100):
            permits.take(1, group=0)
    assert permits.take(1, group=1).since is not None
    assert permits.take(1, group=1).since is None, "it waits, and is not refused"


async def test_a_large_request_of_one_of_several_keys_gets_its_turn() -> None:
    permits = Permits(16, max_queue=100, groups=2)
    small = [permits.take(1, group=1) for _ in range(4)]
    large = permits.take(permits.largest, group=0)
    for _ in range(20):  # the other key always has as many as are kept for it
        permits.give_back(small.pop(0))
        small.append(permits.take(1, group=1))
    assert large.since is not None


def test_shares_without_other_groups_are_all_for_one() -> None:
    shares = Shares(8)
    shares.take(0, 7)
    assert shares.largest == 8 and shares.allows(0, 1) and not shares.allows(0, 2)
    none = Shares(0, 3)
    assert not none.allows(0, 1)
