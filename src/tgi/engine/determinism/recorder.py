"""Runs requests on a worker and keeps what they produced to the last bit.

Owns the tap between model and sampler, and the comparison of two traces. Which runs are made is decided by
`checks`.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tgi.engine.core import EngineCore
from tgi.engine.main import make_scheduler
from tgi.engine.plan import Draw
from tgi.engine.scheduler import Scheduler
from tgi.engine.worker import Worker
from tgi.errors import StartupError
from tgi.messages import GenerateRequest, PromptLogprobs, Sampling, StepStats, Token, unpack_prompt


@dataclass(frozen=True)
class Request:
    """A prompt and how to continue it; `seeds` has one entry for each sample."""

    prompt: tuple[int, ...]
    sampling: Sampling
    seeds: tuple[int, ...]


@dataclass
class Trace:
    """What one sample produced."""

    logits: list[torch.Tensor] = field(default_factory=list)
    """Of each sampled position, [vocabulary] float32 as the model gave them."""
    tokens: list[Token] = field(default_factory=list)
    prompt: PromptLogprobs | None = None


@dataclass
class Run:
    """All samples of one session by (request number, sample), and what the engine did meanwhile."""

    traces: dict[tuple[int, int], Trace]
    stats: list[StepStats]
    cached_tokens: dict[tuple[int, int], int]

    @property
    def preemptions(self) -> int:
        return sum(stats.preemptions for stats in self.stats)

    @property
    def most_running(self) -> int:
        """Most rows of one step that decode."""
        return max((stats.scheduled_decode_tokens for stats in self.stats), default=0)


class TappedSampler:
    """The worker's sampler; keeps the logits before it samples."""

    def __init__(self, sampler: Any, scheduler: Scheduler) -> None:
        self._sampler = sampler
        self._scheduler = scheduler
        self.taken: dict[tuple[int, int], list[torch.Tensor]] = defaultdict(list)

    def sample(self, logits: torch.Tensor, draws: list[Draw], masks: Any = None) -> list[Token | str]:
        for row, draw in zip(logits, draws, strict=True):
            sequence = self._scheduler.find(draw.sequence_id)
            assert sequence is not None, "only open sequences are in a step"
            self.taken[sequence.request_id, sequence.index].append(row.to("cpu", torch.float32, copy=True))
        return self._sampler.sample(logits, draws, masks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)


def run(
    worker: Worker, requests: Mapping[int, Request], *, arrivals: Mapping[int, int] | None = None, **limits: Any
) -> Run:
    """Run requests in one session with an empty cache of prefixes.

    requests: number -> request, in the order of arrival; arrivals: number -> step before which it arrives
    (default: all at once); limits: of the scheduler. Raises StartupError when a request fails.
    """
    core = EngineCore(make_scheduler(worker.info, **limits), worker)
    waiting = sorted(requests, key=lambda number: (arrivals or {}).get(number, 0))
    result = Run(defaultdict(Trace), [], {})
    original = worker.runner.sampler
    worker.runner.sampler = tapped = TappedSampler(original, core.scheduler)  # type: ignore[assignment]
    try:
        while waiting or core.has_work:
            while waiting and ((arrivals or {}).get(waiting[0], 0) <= len(result.stats) or not core.has_work):
                number = waiting.pop(0)
                request = requests[number]
                core.handle(GenerateRequest(number, list(request.prompt), request.sampling, request.seeds))
            _step(core, result)
    finally:
        worker.runner.sampler = original
    for key, rows in tapped.taken.items():
        result.traces[key].logits = rows
    return result


def _step(core: EngineCore, result: Run) -> None:
    output = core.step()
    result.stats.append(output.stats)
    for event in output.events:
        if event.error is not None:
            raise StartupError(f"a request of the verification failed: {event.error}")
        key = event.request_id, event.index
        trace = result.traces[key]
        if event.tokens and not trace.tokens:
            result.cached_tokens[key] = event.cached_tokens
        trace.tokens += event.tokens
        if event.prompt is not None:
            logprobs, top = zip(*unpack_prompt(event.prompt), strict=True)
            trace.prompt = PromptLogprobs(list(logprobs), list(top))


@dataclass
class Difference:
    """Where two traces part."""

    position: int
    """Generated token at which they do; -1: in the prompt's log-probabilities."""
    what: str
    rows: int
    largest: float


def compare(expected: Trace, got: Trace) -> Difference | None:
    """The first difference of two traces, None if every byte is equal.

    Only up to there the texts are the same; so behind it nothing is compared, and all rows count.
    """
    if _prompt_bytes(expected.prompt) != _prompt_bytes(got.prompt):
        return Difference(-1, "log-probabilities of the prompt", len(expected.tokens), _prompt_distance(expected, got))
    for position, (token, row) in enumerate(zip(expected.tokens, expected.logits, strict=True)):
        rows = len(expected.tokens) - position
        if position >= min(len(got.tokens), len(got.logits)):
            return Difference(position, "length", rows, 0.0)
        other = got.logits[position]
        if not torch.equal(row.view(torch.int32), other.view(torch.int32)):
            return Difference(position, "logits", rows, (row - other).abs().nan_to_num(0.0).max().item())
        if _token_bytes(token) != _token_bytes(got.tokens[position]):
            what = "token" if token.id != got.tokens[position].id else "log-probabilities"
            return Difference(position, what, rows, 0.0)
    if len(got.tokens) != len(expected.tokens):
        return Difference(len(expected.tokens), "length", 0, 0.0)
    return None


def _prompt_distance(expected: Trace, got: Trace) -> float:
    if expected.prompt is None or got.prompt is None:
        return 0.0
    pairs = zip(expected.prompt.logprobs, got.prompt.logprobs, strict=False)
    return max((abs(one - other) for one, other in pairs if one == one and other == other), default=0.0)


def _prompt_bytes(prompt: PromptLogprobs | None) -> bytes:
    if prompt is None:
        return b""
    return b"".join([struct.pack(f"{len(prompt.logprobs)}d", *prompt.logprobs), *map(_ranks, prompt.top)])


def _token_bytes(token: Token) -> bytes:
    return struct.pack("qd", token.id, token.logprob) + _ranks(token.top)


def _ranks(top: Sequence[tuple[int, float]]) -> bytes:
    return b"".join(struct.pack("qd", *one) for one in top)
