"""The pace of prefill against a machine of known speed: streams keep going, prompts get done, bursts are not cut."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import pytest

from tests.engine.test_scheduler import check, owner, request
from tests.engine.test_scheduler import run as pretend
from tgi.engine.blocks import BlockPool
from tgi.engine.pace import (
    BURST_S,
    BURST_TOKENS,
    CHUNK_QUANTUM,
    REFRESH_STEPS,
    REMAINDER_TOKENS,
    SETTLED_TOKENS,
    SLOWDOWN,
    Pace,
    PrefillCost,
)
from tgi.engine.plan import Plan
from tgi.engine.scheduler import Scheduler
from tgi.messages import TokenEvent

BUDGET = 512


@dataclass
class Machine:
    """A scheduler whose steps take `seconds(decodes, tokens, context)`; time stands still in between."""

    seconds: Callable[[int, int, int], float]
    budget: int = BUDGET
    now: float = 0.0
    plans: list[Plan] = field(default_factory=list)
    groups: dict[int, int] = field(default_factory=dict)
    """Sequence id -> group."""
    arrivals: dict[int, list[float]] = field(default_factory=dict)
    """Request id -> when each of its tokens came."""

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(
            BlockPool(4096, 16), max_step_tokens=self.budget, max_batch_size=64, max_total_tokens=10_000
        )

    def step(self) -> list[TokenEvent]:
        plan = self.scheduler.schedule()
        check(self.scheduler, plan)
        assert plan
        self.groups |= {chunk.sequence_id: owner(self.scheduler, chunk).group for chunk in plan.chunks}
        prompts = [chunk for chunk in plan.chunks if not chunk.decode]
        tokens = sum(len(chunk.token_ids) for chunk in prompts)
        context = sum(len(chunk.token_ids) * (chunk.start + chunk.end) // 2 for chunk in prompts)
        sampled = pretend(self.scheduler, plan)
        sampled.forward_s = self.seconds(len(plan.chunks) - len(prompts), tokens, context)
        self.now += sampled.forward_s
        events = self.scheduler.commit(plan, sampled)
        for event in events:
            self.arrivals.setdefault(event.request_id, []).extend([self.now] * len(event.tokens))
        self.plans.append(plan)
        return events

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def until_first_token(self, request_id: int, limit: int = 2000) -> None:
        for _ in range(limit):
            if request_id in self.arrivals:
                return
            self.step()
        raise AssertionError("the prompt is never done")

    def gaps(self, request_id: int) -> list[float]:
        times = self.arrivals[request_id]
        return [after - before for before, after in pairwise(times)]


def linear(decodes: int, tokens: int, context: int) -> float:
    """Like a small model on two cores: the weights, a row, a prompt token, what it attends to."""
    return 0.008 + 0.0008 * decodes + 0.0002 * tokens + 0.0000003 * context


def noisy(seed: int) -> Callable[[int, int, int], float]:
    """As `linear` with five percent of jitter, and every fiftieth step three times as long."""
    generator = random.Random(seed)

    def seconds(decodes: int, tokens: int, context: int) -> float:
        disturbed = 3.0 if generator.random() < 0.02 else 1.0
        return linear(decodes, tokens, context) * generator.uniform(0.95, 1.05) * disturbed

    return seconds


def stream(machine: Machine, count: int, steps: int = 20) -> None:
    """`count` streams on their way: requests 0, 1, ..."""
    for number in range(count):
        machine.scheduler.add(request(number, [number] * 64, new=4000))
    machine.steps(steps)


@pytest.mark.parametrize("streams", [1, 4, 16])
@pytest.mark.parametrize("prompt", [300, 2000, 8000])
def test_a_long_prompt_slows_streams_by_the_agreed_factor(streams: int, prompt: int):
    machine = Machine(linear)
    stream(machine, streams)
    before = median(machine.gaps(0)[-10:])
    began = len(machine.arrivals[0])
    machine.scheduler.add(request(99, list(range(prompt)), new=4))
    machine.until_first_token(99)
    during = machine.gaps(0)[began - 1 :]
    least = linear(streams, CHUNK_QUANTUM, CHUNK_QUANTUM * prompt) / before  # one quantum may already cost more
    assert max(during) / before < max(SLOWDOWN + 0.35, least + 0.05)
    alone = sum(linear(0, BUDGET, 0) for _ in range(0, prompt, BUDGET)) + 0.0000003 * prompt * prompt / 2
    assert sum(during) < 4 * (alone + before), "the prompt gets its half of the time"


def test_jitter_and_disturbed_steps_change_little():
    machine = Machine(noisy(1))
    stream(machine, 16, steps=30)
    before = median(machine.gaps(0)[-20:])
    began = len(machine.arrivals[0])
    machine.scheduler.add(request(99, list(range(4000)), new=4))
    machine.until_first_token(99)
    during = sorted(machine.gaps(0)[began - 1 :])
    assert during[int(len(during) * 0.95)] / before < 2.6
    assert median(during) / before > 1.5, "nor is the prompt held back"


def test_an_unmeasured_machine_takes_the_whole_budget():
    machine = Machine(linear)
    machine.scheduler.add(request(0, list(range(2000)), new=2))
    machine.until_first_token(0)
    assert [plan.num_tokens for plan in machine.plans[:2]] == [512, BURST_TOKENS]


def test_a_fast_machine_takes_more_at_once():
    machine = Machine(lambda decodes, tokens, context: 0.004 + linear(decodes, tokens, context) / 10, budget=4096)
    machine.scheduler.add(request(0, [0] * 512, new=1))
    machine.step()
    machine.scheduler.add(request(1, [1] * 4000, new=1))
    machine.step()
    tokens = machine.plans[-1].num_tokens
    assert machine.now > BURST_S and tokens > 4 * BURST_TOKENS
    assert linear(0, tokens, 0) / 10 < BURST_S


@pytest.mark.parametrize("count", [16, 128])
def test_the_first_of_a_burst_do_not_wait_for_the_last(count: int):
    """All arrive within two steps; nobody is held up by those that stream meanwhile."""

    def seconds(decodes: int, tokens: int, context: int) -> float:
        return 0.004 + 0.0004 * (decodes + tokens)

    machine = Machine(seconds, budget=128 * count)
    machine.scheduler.max_batch_size = count
    machine.scheduler.add(request(0, [0] * 128, new=200))
    machine.step()
    began = machine.now
    for number in range(1, count):
        machine.scheduler.add(request(number, [number] * 128, new=200))
    machine.until_first_token(count - 1)
    firsts = sorted(times[0] - began for times in machine.arrivals.values())
    generated = sum(len(times) for times in machine.arrivals.values())
    assert median(firsts) < 0.55 * firsts[-1], "half of them come in about half the time"
    assert firsts[-1] < 1.1 * seconds(0, 128 * (count - 1) + generated, 0), "and the last waits for rows, not for steps"
    assert max(machine.gaps(0)) < 1.1 * seconds(count, BURST_TOKENS - 1, 0)


def test_a_prompt_that_arrives_in_a_burst_after_a_stream_is_paced():
    machine = Machine(linear)
    stream(machine, 1)
    machine.scheduler.add(request(98, list(range(600)), new=4))
    machine.step()
    assert machine.scheduler.running[-1].paced
    assert machine.plans[-1].num_tokens < BURST_TOKENS


def test_prompts_that_wait_get_their_turn_in_order():
    machine = Machine(linear)
    stream(machine, 8)
    for number in range(100, 106):
        machine.scheduler.add(request(number, [number] * 700, new=30))
    machine.until_first_token(105)
    firsts = [machine.arrivals[number][0] for number in range(100, 106)]
    assert firsts == sorted(firsts)
    # The time of a prompt is about the same for each: nobody starves behind the streams.
    between = [after - before for before, after in pairwise(firsts)]
    assert max(between) < 3 * min(between)


def test_short_prompts_under_constant_load_keep_up():
    """A new prompt for every stream that ends: the batch stays full, no step without progress for both."""
    machine = Machine(linear)
    for number in range(16):
        machine.scheduler.add(request(number, [number] * 128, new=40 + number))
    following = 16
    for _ in range(600):
        for event in machine.step():
            if event.finish:
                machine.scheduler.add(request(following, [following] * 128, new=50))
                following += 1
    assert following > 100
    running = [len(plan.chunks) for plan in machine.plans[100:]]
    assert median(running) >= 15


def test_decode_steps_are_measured_again_under_constant_prefill():
    """What a decode step costs changes with the contexts: an old measurement must not rule for ever."""
    slow = False
    machine = Machine(lambda decodes, tokens, context: linear(decodes, tokens, context) + (0.03 if slow else 0.0))
    stream(machine, 4)
    for number in range(100, 120):
        machine.scheduler.add(request(number, [number] * 2000, new=1))
    slow = True
    machine.steps(6 * REFRESH_STEPS)
    pure = [plan for plan in machine.plans[30:] if all(len(chunk.token_ids) == 1 for chunk in plan.chunks)]
    assert 4 <= len(pure) <= 8
    last = [plan.num_tokens for plan in machine.plans[-REFRESH_STEPS:]]
    assert median(last) > 64, "the slower decode step allows larger chunks"


def test_an_untimed_engine_is_not_paced():
    machine = Machine(lambda *_: 0.0)
    stream(machine, 4, steps=2 * SETTLED_TOKENS)
    machine.scheduler.add(request(99, list(range(400)), new=4))
    machine.step()
    assert machine.plans[-1].num_tokens == 404


def test_steps_with_errors_teach_nothing():
    pace = Pace()
    machine = Machine(linear)
    machine.scheduler.pace = pace
    machine.scheduler.add(request(0, [1, 2, 3]))
    plan = machine.scheduler.schedule()
    sampled = pretend(machine.scheduler, plan)
    sampled.forward_s, sampled.errors = 9.0, {0: "broken"}
    machine.scheduler.commit(plan, sampled)
    assert pace.share(10, 1, settled=True).grant(0, 10) == 10, "still unmeasured, hence unlimited"


def test_the_first_chunk_of_a_share_is_never_empty():
    pace = Pace()
    pace.observe(2, 0, 0, 0.010)
    pace.observe(0, 100, 5000, 100.0)  # a second a token
    share = pace.share(500, 2, settled=True)
    assert share.grant(0, 400) == CHUNK_QUANTUM
    assert share.grant(0, 400) == 0 and share.tokens == 0
    assert pace.share(500, 2, settled=True).grant(0, 7) == 7


def test_what_little_is_left_of_a_prompt_is_not_left_for_a_step_of_its_own():
    pace = Pace()
    pace.observe(0, 128, 128 * 64, 1.28)
    share = pace.share(1000, 6, settled=False)
    assert share.grant(0, 128) == 128
    assert share.grant(0, 128) == 128, "6 rows decode: 250 tokens are enough, 6 would be left"
    assert share.grant(100, 26) == 26, "of another one, too"
    assert share.grant(0, 1) == 0 and share.tokens == 0
    assert pace.share(1000, 6, settled=False).grant(0, 250 + REMAINDER_TOKENS + 1) == 250
    assert pace.share(252, 6, settled=False).grant(0, 252) == 252
    assert pace.share(252, 6, settled=False).grant(0, 253) == 250, "the budget holds"


def test_the_first_steps_of_a_size_only_decode():
    pace = Pace()
    pace.observe(1, 0, 0, 0.010)
    assert pace.share(500, 1, settled=True).grant(0, 400) > 0
    assert pace.share(500, 16, settled=True).grant(0, 400) == 0
    pace.observe(16, 0, 0, 0.020)
    assert pace.share(500, 16, settled=True).grant(0, 400) > 0


def test_the_price_of_a_token_grows_with_its_context():
    cost = PrefillCost()
    assert cost.tokens_within(1.0, 0) == 0
    for start in range(0, 1000, 50):
        cost.observe(50, 50 * (start + 25), 50 * (0.001 + 0.000002 * (start + 25)))
    assert cost.seconds(2000, 10) == pytest.approx(0.05, rel=0.1)
    assert cost.tokens_within(0.5, 2000) == pytest.approx(97, rel=0.1)
    for _ in range(100):
        cost.observe(50, 50 * 500, 50 * 0.002)
    assert cost.seconds(500, 1) == pytest.approx(0.002, rel=0.05), "equal contexts say nothing about a slope"
