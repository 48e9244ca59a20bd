"""Fairness of the engine: between short and long prompts, and between groups (API keys)."""

from __future__ import annotations

from collections import Counter
from statistics import median

import msgspec
import pytest

from tests.engine.test_pace import Machine, linear, stream
from tests.engine.test_scheduler import request
from tgi.engine.pace import CHUNK_QUANTUM
from tgi.engine.places import giver, places
from tgi.engine.sequence import Sequence
from tgi.engine.turns import ELDEST_PART, Turns, fair_part
from tgi.messages import GenerateRequest, Sampling

LONG, SHORT = 2000, 40


def grouped(request_id: int, length: int, group: int, new: int = 30) -> GenerateRequest:
    return msgspec.structs.replace(request(request_id, [request_id] * length, new=new), group=group)


def sequence(order: int, length: int, group: int = 0, computed: int = 0, ahead: bool = False) -> Sequence:
    return Sequence(
        order,
        order,
        0,
        [1] * length,
        length,
        Sampling(1),
        0,
        order=order,
        group=group,
        num_computed=computed,
        ahead=ahead,
    )


def delays(machine: Machine, began: dict[int, float]) -> dict[int, float]:
    """Request id -> seconds to its first token."""
    return {number: machine.arrivals[number][0] - start for number, start in began.items()}


# --- short and long -----------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [0, 1, 8])
@pytest.mark.parametrize("arrive", ["before", "with", "after"])
def test_short_prompts_do_not_wait_for_a_burst_of_long_ones(streams: int, arrive: str) -> None:
    """Eight long ones and eight short ones: the short ones' first tokens come among the first of all."""
    machine = Machine(linear)
    stream(machine, streams or 1)
    began: dict[int, float] = {}

    def add(numbers: range, length: int) -> None:
        for number in numbers:
            began[number] = machine.now
            machine.scheduler.add(request(number, [number] * length, new=20))

    shorts, longs = range(200, 208), range(100, 108)
    if arrive == "before":
        add(shorts, SHORT)
    add(longs, LONG)
    if arrive == "after":
        machine.steps(5)
    if arrive != "before":
        add(shorts, SHORT)
    for number in (*shorts, *longs):
        machine.until_first_token(number)
    waits = delays(machine, began)
    of_short, of_long = ([waits[number] for number in numbers] for numbers in (shorts, longs))
    assert median(of_short) < min(of_long), "all of the long ones would be before them, first come first served"
    assert max(of_short) < max(of_long) / 8
    firsts = sorted(of_long)
    assert firsts[0] < firsts[-1] / 4, "and the first long one does not wait for the last"


def test_a_long_prompt_gets_done_while_short_ones_never_cease() -> None:
    machine = Machine(linear, budget=256)
    machine.scheduler.add(request(0, [0] * LONG, new=4))
    number = 1
    for _ in range(400):
        while len(machine.scheduler.waiting) < 4:  # more of them than a step computes
            machine.scheduler.add(request(number, [number] * 120, new=1))
            number += 1
        machine.step()
        if 0 in machine.arrivals:
            break
    computed = sum(plan.num_tokens for plan in machine.plans)
    assert 0 in machine.arrivals
    assert computed < 1.3 * ELDEST_PART * LONG, "it gets its part of all that is computed"


def test_prompts_of_one_length_come_in_order_of_arrival() -> None:
    machine = Machine(linear)
    for number in range(12):
        machine.scheduler.add(request(number, [number] * 300, new=2))
    machine.until_first_token(11)
    assert sorted(machine.arrivals, key=lambda number: machine.arrivals[number][0]) == list(range(12))


def test_who_was_there_before_goes_first() -> None:
    line = [sequence(0, 10), sequence(1, 500, ahead=True), sequence(2, 400, ahead=True), sequence(3, 5)]
    turns = Turns().order(line, 1000)
    assert [turn.sequence.order for turn in turns] == [1, 2, 3, 0]


# --- groups -------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [10, 200, LONG])
@pytest.mark.parametrize("new", [1, 400])
def test_a_thousand_requests_of_one_key_do_not_hold_up_anothers_first(length: int, new: int) -> None:
    machine = Machine(linear)
    for number in range(1000):
        machine.scheduler.add(grouped(number, length, group=0, new=new))
    machine.steps(15)
    machine.scheduler.add(grouped(5000, SHORT, group=1))
    steps = len(machine.plans)
    machine.until_first_token(5000)
    # One step may be spent on measuring how long a step without prompts takes.
    assert len(machine.plans) - steps <= 2 + -(-SHORT // CHUNK_QUANTUM)
    if new == 1:
        assert len(machine.plans) - steps == 1


def test_a_long_first_request_gets_half_of_the_prompt_tokens() -> None:
    machine = Machine(linear)
    for number in range(100):
        machine.scheduler.add(grouped(number, LONG, group=0))
    machine.steps(10)
    machine.scheduler.add(grouped(5000, LONG, group=1))
    steps = len(machine.plans)
    machine.until_first_token(5000)
    tokens: Counter[int] = Counter()
    for plan in machine.plans[steps:]:
        for chunk in plan.chunks:
            tokens[machine.groups[chunk.sequence_id]] += len(chunk.token_ids)
    assert tokens[1] == pytest.approx(tokens[0], rel=0.2)


def test_places_in_the_batch_become_equal_as_they_get_free() -> None:
    machine = Machine(linear)
    machine.scheduler.max_batch_size = 8
    for number in range(60):
        machine.scheduler.add(grouped(number, 20, group=0, new=20 + number % 7))
    machine.steps(10)
    for number in range(1000, 1060):
        machine.scheduler.add(grouped(number, 20, group=1, new=20 + number % 7))
    machine.steps(40)
    shares = []
    for _ in range(60):
        machine.step()
        running = Counter(one.group for one in machine.scheduler.running)
        shares.append(running[1])
    assert median(shares) == 4


def test_memory_is_made_for_a_group_that_has_nothing() -> None:
    """One key fills the cache; the other's first needs a good part of it, and gets it without waiting for an end."""
    machine = Machine(linear)
    for number in range(40):
        machine.scheduler.add(grouped(number, 3000, group=0, new=5000))
    machine.steps(400)
    scheduler = machine.scheduler
    assert scheduler.waiting and scheduler.blocks.num_free < 3000 / 16 + len(scheduler.running)
    oldest = scheduler.running[0]
    scheduler.add(grouped(5000, 3000, group=1))
    machine.step()
    assert any(one.group == 1 for one in scheduler.running)
    assert scheduler.running[0] is oldest
    machine.until_first_token(5000)


@pytest.mark.parametrize("groups", [2, 3, 10])
def test_every_group_gets_done(groups: int) -> None:
    machine = Machine(linear)
    machine.scheduler.max_batch_size = 4
    for number in range(groups * 6):
        machine.scheduler.add(grouped(number, 50 + 300 * (number % groups), number % groups, new=5))
    for _ in range(3000):
        if not machine.scheduler.has_work:
            break
        machine.step()
    assert {len(times) for times in machine.arrivals.values()} == {5} and len(machine.arrivals) == groups * 6


def test_small_shares_go_round() -> None:
    """When a step has only one quantum, the groups take turns."""
    turns, got = Turns(), Counter[int]()
    line = [sequence(number, 10_000, group=number % 3) for number in range(6)]
    for _ in range(30):
        left = CHUNK_QUANTUM
        for turn in turns.order(line, CHUNK_QUANTUM):
            turn.taken = min(left, CHUNK_QUANTUM if turn.limit is None else max(turn.limit, CHUNK_QUANTUM))
            left -= turn.taken
            turn.sequence.num_computed += turn.taken
            got[turn.sequence.group] += turn.taken
            if not left:
                break
    assert set(got.values()) == {10 * CHUNK_QUANTUM}


@pytest.mark.parametrize(
    ("room", "demand", "others", "part"),
    [
        (100, 500, [], 100),
        (100, 30, [], 30),
        (100, 500, [500], 50),
        (100, 500, [20], 80),
        (100, 30, [500, 500], 30),
        (100, 500, [10, 500], 45),
        (0, 5, [5], 0),
    ],
)
def test_fair_part(room: int, demand: int, others: list[int], part: int) -> None:
    assert fair_part(room, demand, others) == part


def test_places() -> None:
    def of(counts: dict[int, int]) -> list[Sequence]:
        return [sequence(0, 1, group=group) for group, count in counts.items() for _ in range(count)]

    assert places(of({0: 2}), of({0: 9, 1: 9}), 6) == {0: 1, 1: 3}
    assert places(of({}), of({0: 9, 1: 1}), 4) == {0: 3, 1: 1}
    assert places(of({0: 4}), of({0: 9, 1: 2}), 4) == {1: 1}, "the group with four gives one"
    assert places(of({0: 1, 1: 1}), of({2: 5}), 2) == {}, "nobody has two"
    assert giver(of({0: 1, 1: 1})) is None and giver([]) is None
    line = of({0: 3, 1: 2})
    assert giver(line) is line[2]
