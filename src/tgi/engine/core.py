"""The engine's loop in three verbs: schedule, run, commit.

Owns the order of things within a step, what happens when a step raises, and the heartbeat. Talks to
the outside through two callables, so that it runs in its own process (`main`) or inside a test.
Imports no torch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tgi.engine.plan import Chunk, EncoderInput, Plan, Sampled, probe
from tgi.engine.scheduler import Scheduler
from tgi.engine.sequence import Sequence
from tgi.messages import (
    Abort,
    Begun,
    EmbedRequest,
    EngineFailed,
    FromEngine,
    GenerateRequest,
    StepOutput,
    StepStats,
    ToEngine,
    TokenEvent,
    Vocabulary,
)

if TYPE_CHECKING:  # numpy starts threads when it is imported, which must be after `main` has masked SIGTERM
    from tgi.engine.grammar.store import Grammars

logger = logging.getLogger("tgi.engine")

HEARTBEAT_S = 1.0
"""An idle engine reports so often, so that silence means trouble."""
LOOK_S = 0.001
"""Between looks whether a grammar is compiled, while nothing else is to do."""


class Executor(Protocol):
    """Runs plans: `worker.Worker`, or a stand-in in tests."""

    def execute(self, plan: Plan) -> Sampled: ...


class EngineBrokenError(Exception):
    """The executor fails even on a probe: the process cannot go on."""


class EngineCore:
    """Requests in, step outputs out."""

    def __init__(self, scheduler: Scheduler, executor: Executor, grammars: Grammars | None = None) -> None:
        """grammars: those that the executor constrains with; None: it cannot."""
        self.scheduler = scheduler
        self.executor = executor
        self.grammars = grammars
        self.steps = 0
        self._events: list[TokenEvent] = []  # refusals and aborts since the last step

    def handle(self, message: ToEngine) -> None:
        """Book one message of the API process; its effect shows in the next `step`."""
        if isinstance(message, GenerateRequest):
            self._events += self._add(message)
        elif isinstance(message, EmbedRequest):
            self._events += self.scheduler.add(message)
        elif isinstance(message, Abort):
            self._events += self.scheduler.abort(message.request_id, message.index)
        elif isinstance(message, Vocabulary) and self.grammars is not None:
            self.grammars.introduce(message)

    def _add(self, request: GenerateRequest) -> list[TokenEvent]:
        logger.debug("Request %s has %d prompt tokens", name_of(request), len(request.prompt_ids))
        events, grammar = self.scheduler.add(request), request.grammar
        if grammar is None or events:
            return events
        if self.grammars is None:
            return self.scheduler.settle(grammar, None, "grammars are not supported")
        compiled = self.grammars.want(grammar)
        return [] if compiled is None else self.scheduler.settle(grammar, compiled, None)

    def collect(self) -> None:
        """Let sequences go on whose grammars have been compiled meanwhile."""
        if self.grammars is None:
            return
        for outcome in self.grammars.finished():
            self._events += self.scheduler.settle(outcome.grammar, outcome.compiled, outcome.error)

    @property
    def patience(self) -> float:
        """Seconds that the loop may wait for the next message."""
        if self.has_work:
            return 0.0
        return LOOK_S if self.grammars is not None and self.grammars.busy else HEARTBEAT_S

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work or bool(self._events)

    def step(self, tell: Callable[[FromEngine], None] | None = None) -> StepOutput:
        """Schedule, run, commit. Raises `EngineBrokenError` only.

        tell: gets what is worth telling before the step is over.
        """
        began = time.perf_counter()
        plan = self.scheduler.schedule()
        scheduled = time.perf_counter()
        events, self._events = self._events, []
        sampled = Sampled([])
        if plan:
            if tell is not None and plan.begun:
                tell(Begun(list(dict.fromkeys(plan.begun)), time.monotonic()))
            sampled = self._execute(plan)
            events += self.scheduler.commit(plan, sampled)
            self.steps += 1
        stats = self._stats(plan, sampled)
        stats.schedule_s = scheduled - began
        stats.total_s = time.perf_counter() - began
        return StepOutput(events, stats)

    def _stats(self, plan: Plan, sampled: Sampled) -> StepStats:
        decodes = sum(len(chunk.token_ids) for chunk in plan.chunks if chunk.decode)
        scheduler = self.scheduler
        return StepStats(
            step=self.steps,
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            free_blocks=scheduler.blocks.num_free,
            running_tokens=sum(sequence.max_tokens for sequence in scheduler.running),
            scheduled_prefill_tokens=plan.num_tokens - decodes,
            scheduled_decode_tokens=decodes,
            admitted=len(plan.begun),
            prefix_hit_tokens=plan.prefix_hit_tokens,
            prefix_query_tokens=plan.prefix_query_tokens,
            preemptions=plan.preempted,
            forward_s=sampled.forward_s,
            sample_s=sampled.sample_s,
            failed=bool(sampled.errors),
        )

    def _execute(self, plan: Plan) -> Sampled:
        """Run the plan; if that raises, run its chunks one by one, so that only the culprit fails."""
        try:
            return self.executor.execute(plan)
        except Exception:
            logger.exception("A step over %d sequences failed; running them one by one", len(plan.chunks))
        merged = Sampled(tokens=[[] for _ in plan.chunks])
        for number, chunk in enumerate(plan.chunks):
            try:
                alone = self.executor.execute(Plan([chunk]))
            except Exception as error:
                sequence = self.scheduler.find(chunk.sequence_id)
                logger.exception("Request %s fails", "that has ended" if sequence is None else name_of(sequence))
                merged.errors[number] = f"the model step failed ({type(error).__name__})"
                continue
            merged.tokens[number] = alone.tokens[0]
            if alone.complete:
                merged.complete.append(number)
            if 0 in alone.drafts:
                merged.drafts[number] = alone.drafts[0]
            if 0 in alone.prompt:
                merged.prompt[number] = alone.prompt[0]
            if 0 in alone.pooled:
                merged.pooled[number] = alone.pooled[0]
            if 0 in alone.errors:
                merged.errors[number] = alone.errors[0]
            merged.forward_s += alone.forward_s
            merged.sample_s += alone.sample_s
        if len(merged.errors) == len(plan.chunks):
            self._probe(plan.chunks[0])
        return merged

    def _probe(self, failed: Chunk) -> None:
        """Everything failed: is it the requests or the device? One token on the failed chunk's block tells."""
        try:
            given = failed.encoder and EncoderInput([0], 1, failed.encoder.block_table[:1])
            again = probe([0], 0, failed.block_table[-1:], given, state_to=failed.state_to)
            self.executor.execute(Plan([again]))
        except Exception as error:
            raise EngineBrokenError(f"the model step fails on every input ({type(error).__name__})") from error


def run(core: EngineCore, receive: Callable[[float], ToEngine | None], send: Callable[[FromEngine], None]) -> None:
    """Serve until `receive` raises (the caller's way to stop it).

    `receive(timeout_s)` gives the next message or None; with timeout 0 it only looks.
    """
    while True:
        patience = core.patience
        message = receive(patience)
        while message is not None:
            core.handle(message)
            message = receive(0.0)
        core.collect()
        if patience == LOOK_S and not core.has_work:
            continue
        try:
            send(core.step(send))
        except EngineBrokenError as error:
            for sequence in core.scheduler.unfinished:
                send(StepOutput([core.scheduler.finish(sequence, "error", str(error))], StepStats(step=core.steps)))
            send(EngineFailed(str(error), "step"))
            raise


def name_of(request: GenerateRequest | Sequence) -> str:
    """What a request is called in the log: its own name, or else its number."""
    return request.label or str(request.request_id)
