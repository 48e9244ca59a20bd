"""Encoder-decoder models through the whole engine: greedy tokens equal transformers', whoever runs beside."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.harness import LocalEngine
from tests.models.seq2seq import CASES, FORCED, write_tiny
from tgi.engine.determinism.checks import verify
from tgi.kernels.native.library import NativeUnavailable, load
from tgi.messages import unpack_prompt
from tgi.settings.config import EngineConfig

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


FAST = ("t5", "mt5", "bart", "m2m_100", "marian")
"""One of each kind; the others differ from one of them by little."""
PARAMS = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


@pytest.fixture(scope="module", params=PARAMS)
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


def test_same_bits_whoever_runs_beside(model: Model) -> None:
    """Log-probabilities of tokens alone and in the batch, on the native backend."""
    engine = model.engine("native")
    if model.name not in ("t5", "m2m_100"):
        pytest.skip("one model of each kind")
    together = engine.session()
    for number, prompt in enumerate(model.prompts):
        together.add(number, prompt, 8)
        together.step()
    together.drain()
    for number, prompt in enumerate(model.prompts):
        alone = engine.session(max_step_tokens=8)
        alone.add(number, prompt, 8)
        alone.drain()
        tokens, expected = ([t for e in one.events[number, 0] for t in e.tokens] for one in (together, alone))
        assert tokens == expected


@pytest.mark.parametrize("name", ["m2m_100", pytest.param("t5", marks=pytest.mark.slow)])
def test_they_are_deterministic(name: str, tmp_path: Path) -> None:
    """`tgi verify-determinism`: batches, chunks, preemptions, samples, threads."""
    try:
        load()
    except NativeUnavailable as reason:
        pytest.skip(str(reason))
    write_tiny(tmp_path, name)
    config = EngineConfig(model_path=str(tmp_path), model_id=name, device="cpu", threads=2)
    report = verify(config, 1, lambda line: None)
    verdicts = {check.name: check.verdict for check in report.checks}
    assert verdicts.pop("prefix hit") == "not run"
    assert report.passed and set(verdicts.values()) == {"equal"}, verdicts


@pytest.mark.parametrize("activations", ["float32", "int8"])
@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_codes(model: Model, quantize: str, activations: str) -> None:
    """Rounded weights run, the same on both backends. One activation between two codes may move all after it."""
    if model.name != "m2m_100":
        pytest.skip("one model")
    answers = []
    for native in (True, False):
        settings = {"quantize": quantize, "activation_dtype": activations}
        session = LocalEngine(model.path, native_kernels=native, **settings).session()
        session.add(0, model.prompts[1], 8)
        session.drain()
        answers.append([token for event in session.events[0, 0] for token in event.tokens])
    assert len(answers[0]) == len(answers[1]) == 8
    if activations == "float32":
        assert [token.id for token in answers[0]] == [token.id for token in answers[1]]
    near = 1e-3 if activations == "float32" else 0.2
    assert answers[0][0].logprob == pytest.approx(answers[1][0].logprob, abs=near)


def test_limits_and_prompt_details(model: Model) -> None:
    """The input counts as input; what the decoder begins with is what has log-probabilities."""
    if model.name != "m2m_100":
        pytest.skip("one model")
    info = model.engine("native").info
    assert (info.max_input_tokens, info.max_total_tokens, info.max_new_tokens) == (400, 800, 399)
    assert info.decoder_ids == (2, 290) and not info.prefix_caching
    narrow = LocalEngine(model.path, max_batch_prefill_tokens=100, max_input_tokens=300).info
    assert narrow.max_input_tokens == 100 and "the encoder reads an input in one step" in narrow.memory.lowered[-1]
    session = model.engine("native").session(num_blocks=5)
    session.add(0, model.prompts[1], 2, prompt_logprobs=0)
    session.add(1, model.prompts[1], 100)  # 3 blocks of input and 4 of the decoder's
    session.drain()
    (prompt,) = [event.prompt for event in session.events[0, 0] if event.prompt is not None]
    logprobs = [logprob for logprob, _ in unpack_prompt(prompt)]
    assert len(logprobs) == 2 and math.isnan(logprobs[0]) and logprobs[1] < 0
    assert "exceed" in (session.events[1, 0][-1].error or "")


@pytest.mark.parametrize(
    ("name", "method"), [("t5", "bitsandbytes-nf4"), ("bart", "bitsandbytes"), ("m2m_100", "fp8"), ("marian", "int8")]
)
def test_rounded_weights(name: str, method: str, tmp_path: Path) -> None:
    """Both backends answer alike, and with other probabilities than unrounded weights."""
    write_tiny(tmp_path, name, 5)
    answers = []
    for kind, quantize in (("reference", method), ("native", method), ("native", None)):
        engine = LocalEngine(tmp_path, native_kernels=kind == "native", quantize=quantize)
        session = engine.session(num_blocks=14, max_step_tokens=64)
        session.add(0, list(range(5, 40)), 8)
        session.drain()
        answers.append([token.logprob for event in session.events[0, 0] for token in event.tokens])
    assert len(answers[0]) == 8
    assert answers[0] == pytest.approx(answers[1], abs=0.02)
    assert answers[1] != pytest.approx(answers[2], abs=1e-6)
