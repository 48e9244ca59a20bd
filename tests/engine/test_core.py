"""The engine's loop with stand-ins for the model: faults stay with their request, every request ends."""

from __future__ import annotations

import pytest

from tests.engine.test_scheduler import make_scheduler, request
from tests.engine.test_scheduler import run as pretend
from tgi.engine.core import EngineBrokenError, EngineCore, run
from tgi.engine.plan import Plan, Sampled
from tgi.engine.scheduler import Scheduler
from tgi.messages import Abort, Begun, EngineFailed, FromEngine, StepOutput


class Executor:
    """Runs plans without a model; raises whenever a chunk of a poisoned request is in the plan."""

    def __init__(self, scheduler: Scheduler, poisoned: set[int] = frozenset()) -> None:
        self.scheduler = scheduler
        self.poisoned = set(poisoned)
        self.calls = 0
        self.broken = False

    def execute(self, plan: Plan) -> Sampled:
        self.calls += 1
        sequences = [self.scheduler.find(chunk.sequence_id) for chunk in plan.chunks]
        if self.broken or any(sequence and sequence.request_id in self.poisoned for sequence in sequences):
            raise RuntimeError("/secret/path at 0xdeadbeef")
        return Sampled([[]]) if sequences == [None] else pretend(self.scheduler, plan)


def outcome(outputs: list[StepOutput]) -> dict[int, str | None]:
    return {e.request_id: e.finish for output in outputs for e in output.events if e.finish}


def steps(core: EngineCore) -> list[StepOutput]:
    outputs = []
    while core.has_work:
        outputs.append(core.step())
    return outputs


def test_a_failing_request_fails_alone():
    core = EngineCore(scheduler := make_scheduler(num_blocks=64), Executor(scheduler, {2}))
    for number in range(4):
        core.handle(request(number, [1, 2, number]))
    outputs = steps(core)
    assert outcome(outputs) == {0: "length", 1: "length", 2: "error", 3: "length"}
    (error,) = [e.error for o in outputs for e in o.events if e.error]
    assert "RuntimeError" in error and "secret" not in error and "0x" not in error
    assert core.scheduler.blocks.num_free == 64


def test_a_lone_failing_request_does_not_stop_the_engine():
    core = EngineCore(scheduler := make_scheduler(), Executor(scheduler, {1}))
    core.handle(request(1, [1, 2]))
    assert outcome(steps(core)) == {1: "error"}
    core.handle(request(2, [1, 2]))
    assert outcome(steps(core)) == {2: "length"}


def test_a_broken_device_ends_every_request_and_says_so():
    scheduler = make_scheduler(batch_size=2)
    executor = Executor(scheduler)
    core = EngineCore(scheduler, executor)
    sent: list = []
    inbox = [request(number, [1, 2, 3]) for number in range(5)]

    def receive(timeout_s: float):
        if inbox:
            return inbox.pop(0)
        executor.broken = executor.calls >= 2
        return None

    with pytest.raises(EngineBrokenError):
        run(core, receive, sent.append)
    outputs = [message for message in sent if isinstance(message, StepOutput)]
    assert outcome(outputs) == dict.fromkeys(range(5), "error")
    assert isinstance(sent[0], Begun) and sent[0].request_ids == [0, 1]
    assert isinstance(sent[-1], EngineFailed) and sent[-1].phase == "step"


def test_abort_frees_within_the_next_step():
    core = EngineCore(scheduler := make_scheduler(num_blocks=32), Executor(scheduler))
    for number in range(3):
        core.handle(request(number, [number] * 8, new=50, samples=2))
    core.step()
    core.step()
    core.handle(Abort(1))
    core.handle(Abort(99))
    output = core.step()
    assert {(e.request_id, e.index) for e in output.events if e.finish == "abort"} == {(1, 0), (1, 1)}
    assert all(sequence.request_id != 1 for sequence in core.scheduler.unfinished)
    core.scheduler.blocks.check(core.scheduler.unfinished)


def test_idle_engine_reports_and_refusals_are_answered():
    core = EngineCore(scheduler := make_scheduler(), Executor(scheduler))
    output = core.step()
    assert not output.events and output.stats.step == 0
    core.handle(request(1, list(range(1000))))
    assert core.has_work
    assert core.step().events[0].finish == "error"


def test_stats_tell_prefill_from_decode():
    core = EngineCore(scheduler := make_scheduler(), Executor(scheduler))
    core.handle(request(1, [1, 2, 3, 4, 5]))
    first, second = core.step().stats, core.step().stats
    assert (first.scheduled_prefill_tokens, first.scheduled_decode_tokens, first.admitted) == (5, 0, 1)
    assert (second.scheduled_prefill_tokens, second.scheduled_decode_tokens, second.admitted) == (0, 1, 0)
    assert second.step == 2 and second.running == 1


def test_requests_that_leave_the_queue_are_told_of_before_their_step():
    scheduler = make_scheduler()
    executor = Executor(scheduler)
    core = EngineCore(scheduler, executor)
    told: list[tuple[list[int], int]] = []

    def tell(news: FromEngine) -> None:
        assert isinstance(news, Begun)
        told.append((news.request_ids, executor.calls))

    core.handle(request(1, [1, 2, 3]))
    core.step(tell)
    core.step(tell)
    core.handle(request(2, [4, 5]))
    core.step(tell)
    assert told == [([1], 0), ([2], 2)]
