"""A second rank runs from the serialised plan alone, and drafts from wherever they come change no token."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tgi.engine.core import EngineCore
from tgi.engine.main import make_scheduler
from tgi.engine.plan import Plan, Sampled, decode, encode
from tgi.engine.sequence import Sequence
from tgi.engine.worker import Worker
from tgi.messages import GenerateRequest, Sampling
from tgi.settings.config import EngineConfig

DEMO = Path(__file__).parents[2] / "src/tgi/demo"
SAMPLINGS = (
    Sampling(max_new_tokens=12),
    Sampling(max_new_tokens=12, do_sample=True, temperature=1.3, top_p=0.9, repetition_penalty=1.2),
    Sampling(max_new_tokens=12, do_sample=True, frequency_penalty=0.5, top_n_tokens=3),
    Sampling(max_new_tokens=12, prompt_logprobs=2, logit_bias={7: 3.0}, min_new_tokens=4, eos_token_ids=(11,)),
)
Texts = dict[tuple[int, int], list[int]]


@pytest.fixture(scope="module")
def config() -> EngineConfig:
    return EngineConfig(
        model_path=str(DEMO), device="cpu", max_total_tokens=256, max_batch_prefill_tokens=32, threads=1
    )


@pytest.fixture(scope="module")
def worker(config: EngineConfig) -> Worker:
    return Worker(config)


def requests() -> list[GenerateRequest]:
    generator = random.Random(5)
    return [
        GenerateRequest(
            number,
            [generator.randrange(300, 900) for _ in range(5 + 17 * (number % 3))],
            SAMPLINGS[number % 4],
            (number, number + 50),
        )
        for number in range(6)
    ]


class TwoRanks:
    """Runs each plan here, and what `encode` made of it on another worker; both must say the same."""

    def __init__(self, first: Worker, second: Worker) -> None:
        self.first, self.second = first, second

    def execute(self, plan: Plan) -> Sampled:
        told = decode(encode(plan))
        result, other = self.first.execute(plan), self.second.execute(told)
        assert (other.tokens, other.errors) == (result.tokens, result.errors)
        assert str(other.prompt) == str(result.prompt)
        return result


def serve(core: EngineCore, drafts: Callable[[Sequence], list[int]] | None = None) -> tuple[Texts, int]:
    """Ids of every sample, and how many events had several tokens; `drafts` guesses what comes next."""
    texts: Texts = {}
    several, asked = 0, requests()
    while asked or core.has_work:
        if asked:
            core.handle(asked.pop())
        for sequence in core.scheduler.running if drafts else []:
            if sequence.num_uncomputed == 1:
                sequence.draft_ids = drafts(sequence)
        for event in core.step().events:
            assert event.error is None
            several += len(event.tokens) > 1
            texts.setdefault((event.request_id, event.index), []).extend(token.id for token in event.tokens)
    return texts, several


def test_a_rank_needs_the_serialised_plan_alone(config: EngineConfig, worker: Worker):
    texts, _ = serve(EngineCore(make_scheduler(worker.info), TwoRanks(worker, Worker(config))))
    assert len(texts) == 12 and all(texts.values())


def test_drafts_change_no_token(worker: Worker):
    plain, _ = serve(EngineCore(make_scheduler(worker.info), worker))
    generator = random.Random(1)

    def guess(sequence: Sequence) -> list[int]:
        return [generator.randrange(300, 900) for _ in range(generator.randrange(3))]

    def know(sequence: Sequence) -> list[int]:
        return [*plain[sequence.request_id, sequence.index][sequence.num_generated :][:2], 5, 6]

    assert serve(EngineCore(make_scheduler(worker.info), worker), guess)[0] == plain
    texts, several = serve(EngineCore(make_scheduler(worker.info), worker), know)
    assert texts == plain and several > 10
