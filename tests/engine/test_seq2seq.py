"""Encoder-decoder models through the whole engine: greedy tokens equal transformers', whoever runs beside."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.harness import LocalEngine
from tests.models.seq2seq import CASES, FORCED, write_tiny

BACKENDS = ("reference", "native")
NEW = 64


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Model:
    """A checkpoint, and what transformers generates from it."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.oracle = write_tiny(path, name, 5)  # the same in every run: a near-tie would end equality
        self.engines: dict[str, LocalEngine] = {}
        rng = random.Random(5)
        self.prompts = [[rng.randrange(3, 270) for _ in range(length)] for length in (5, 70, 33, 1, 130, 32)]
        self.expected = [self.generate(prompt) for prompt in self.prompts]

    def engine(self, kind: str) -> LocalEngine:
        if kind not in self.engines:
            self.engines[kind] = LocalEngine(self.path, native_kernels=kind == "native")
        return self.engines[kind]

    def generate(self, prompt: list[int], **options: Any) -> list[int]:
        """The tokens after those that the decoder begins with."""
        begun = 1 + (self.name in FORCED)
        with torch.inference_mode():
            options = {"do_sample": False, "num_beams": 1, "eos_token_id": None, **options}
            ids = torch.tensor([prompt])
            out = self.oracle.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW + begun - 1, **options
            )
        return out[0].tolist()[begun:]


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("kind", BACKENDS)
def test_greedy_tokens_while_others_join_leave_and_are_preempted(model: Model, kind: str) -> None:
    session = model.engine(kind).session(num_blocks=14, max_step_tokens=64)
    for number, prompt in enumerate(model.prompts):
        session.add(number, prompt, NEW)
        for _ in range(9 * number):
            session.step()
    session.drain()
    assert sum(stats.preemptions for stats in session.stats), "blocks were meant to run out"
    for number, expected in enumerate(model.expected):
        assert session.finish(number) == "length", session.events[number, 0][-1].error
        assert session.tokens(number) == expected
