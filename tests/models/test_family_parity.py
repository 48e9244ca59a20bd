"""Same logits and greedy tokens as transformers for the tiny checkpoints of `tests.models.tiny`, on both backends.

Each is computed in every way a sequence can be: whole, in chunks of seven, in a mixed batch of sixteen, after a prefix
hit and after a preemption. Weights and tokens are fresh in every run; a failure prints the seed.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.driver import Driver, Row
from tests.models.test_parity import BACKENDS, TOLERANCE, assert_close, backend_named
from tests.models.tiny import CASES, VOCAB, corrections, write_tiny
from tgi.kernels.types import Backend
from tgi.models.build.decoder import build
from tgi.models.families.registry import read_spec
from tgi.models.inventory import compare, read_stored
from tgi.models.loader import load_model
from tgi.settings.flags import LIBRARY_ROUNDINGS


@dataclass
class Checkpoint:
    path: Path
    seed: int
    oracle: Any

    @cache  # noqa: B019
    def expected(self, ids: tuple[int, ...]) -> torch.Tensor:
        with torch.inference_mode():
            return self.oracle(torch.tensor([ids]), use_cache=False).logits[0].float()

    def check(self, got: torch.Tensor, ids: Sequence[int], start: int = 0) -> None:
        """`got` (rows, vocabulary) are the oracle's logits of `ids` from `start` on, but where those are not settled.

        A router jumps where two experts tie, within a rounding error as well as anywhere else: of the tens of thousands
        of choices in a run some come that near. From the first row on at which the oracle itself jumps when its inputs
        change by less than float32 can tell, a row that differs says nothing; before it each must agree.
        """
        expected = self.expected(tuple(ids))[start:]
        assert got.shape == expected.shape
        if not is_close(got, expected):
            settled = max(self.first_jump(tuple(ids)) - start, 0)
            print(f"{len(expected) - settled} of {len(expected)} rows follow a tie of experts")
            got, expected = got[:settled], expected[:settled]
        if len(expected):
            assert_close(got, expected)

    def first_jump(self, ids: tuple[int, ...]) -> int:
        """The first row whose logits change by more than the tolerance in one of 32 runs with embeddings that are off
        by up to a millionth; the number of rows if there is none."""
        expected = self.expected(ids)
        off = self.oracle.get_input_embeddings().register_forward_hook(
            lambda module, args, output: output * (1 + 1e-6 * (2 * torch.rand_like(output) - 1))
        )
        try:
            with torch.inference_mode():
                runs = [self.oracle(torch.tensor([ids]), use_cache=False).logits[0].float() for _ in range(32)]
        finally:
            off.remove()
        jumps = [(run - expected).abs().amax(1) > TOLERANCE * expected.abs().max() for run in runs]
        rows = torch.stack(jumps).any(0).nonzero()
        return int(rows[0]) if len(rows) else len(ids)

    def __hash__(self) -> int:
        return id(self)


def is_close(got: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((got - expected).abs().max() <= TOLERANCE * expected.abs().max())


@pytest.fixture(scope="module", params=CASES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"{request.param}: seed {seed}")  # shown by pytest when a test fails
    path = tmp_path_factory.mktemp(request.param)
    return Checkpoint(path, seed, write_tiny(path, request.param, seed))


@pytest.mark.parametrize("kind", BACKENDS)
def test_logits_and_greedy_tokens(checkpoint: Checkpoint, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    backend, rng = backend_named(kind), random.Random(checkpoint.seed)
    with caplog.at_level(logging.WARNING):
        loaded = load_model(checkpoint.path, None, backend)
    assert not caplog.records, "every key of the config is consumed or known"
    driver = Driver(loaded, backend, seed=checkpoint.seed)
    ids = [rng.randrange(VOCAB) for _ in range(120)]
    whole, seven = driver.run(ids), driver.run(ids, chunk=7)
    checkpoint.check(whole, ids)
    checkpoint.check(seven, ids)
    mixed_batch(checkpoint, driver, rng)
    prefix_hit_and_preemption(checkpoint, driver, backend, rng)
    greedy(checkpoint, driver, ids[:20])


def test_parameters_and_codes(checkpoint: Checkpoint) -> None:
    """`tgi plan` counts what transformers has, and weights rounded to int8 give nearly the same logits."""
    spec = read_spec(checkpoint.path)
    program = build(spec)
    fixed = (spec.max_positions + spec.first_position) * spec.hidden_size if spec.sinusoidal_positions else 0
    fixed += sum(name.endswith((".beta", ".eps")) for vector in program.vectors() for name in vector.names)
    learned = [*checkpoint.oracle.parameters(), *corrections(checkpoint.oracle)]
    assert program.parameters - fixed == sum(parameter.numel() for parameter in learned)
    compare(read_stored(checkpoint.path, spec.names), spec, program).check()  # the headers alone say that all is there
    backend, rng = backend_named("native"), random.Random(checkpoint.seed)
    driver = Driver(load_model(checkpoint.path, None, backend, quantize="int8"), backend)
    ids = tuple(rng.randrange(VOCAB) for _ in range(30))
    wanted = checkpoint.expected(ids)
    error = (driver.run(list(ids)) - wanted).abs().mean() / wanted.abs().mean()
    assert 0 < error < 0.5, f"mean error {error:.2f} of the mean logit"


METHODS = dict(zip(CASES, itertools.cycle(LIBRARY_ROUNDINGS), strict=False))
"""Each way of rounding that is another library's meets every fifth family."""


def test_weights_rounded_as_other_libraries_do(checkpoint: Checkpoint, request: pytest.FixtureRequest) -> None:
    """Both backends compute the same with them, and nearly what the unrounded ones give."""
    method, rng = METHODS[request.node.callspec.params["checkpoint"]], random.Random(checkpoint.seed)
    ids = [rng.randrange(VOCAB) for _ in range(30)]
    found = []
    for kind in ("reference", "native"):
        backend = backend_named(kind)
        found.append(Driver(load_model(checkpoint.path, None, backend, quantize=method), backend).run(ids))
    wanted = checkpoint.expected(tuple(ids))
    assert_close(found[1], found[0])
    error = (found[0] - wanted).abs().mean() / wanted.abs().mean()
    assert 0 < error < (1.2 if "4" in method else 0.3), f"{method}: mean error {error:.2f} of the mean logit"


def test_longrope_of_a_server_with_long_sequences(tmp_path: Path) -> None:
    """Served beyond the original context all rows take the factors for long sequences, as in one long prompt."""
    oracle = write_tiny(tmp_path, "phi3-longrope-partial", 3, original_max_position_embeddings=64)
    spec, backend, rng = read_spec(tmp_path), backend_named("native"), random.Random(3)
    assert spec.served_up_to(64) == spec != spec.served_up_to(65)
    driver = Driver(load_model(tmp_path, None, backend, spec=spec.served_up_to(512)), backend)
    ids = [rng.randrange(VOCAB) for _ in range(120)]
    expected = Checkpoint(tmp_path, 3, oracle).expected(tuple(ids))
    assert_close(driver.run(ids), expected)
    assert_close(driver.run(ids, chunk=7), expected)
    short = Driver(load_model(tmp_path, None, backend, spec=spec.served_up_to(64)), backend)
    assert_close(short.run(ids[:60], chunk=7), Checkpoint(tmp_path, 3, oracle).expected(tuple(ids[:60])))


def mixed_batch(checkpoint: Checkpoint, driver: Driver, rng: random.Random) -> None:
    """Prompts in one batch, then steps of single rows among which a late prompt comes in chunks."""
    prompts = [tuple(rng.randrange(VOCAB) for _ in range(rng.randint(4, 110))) for _ in range(16)]
    rows = [Row() for _ in prompts]
    first = driver.step([(row, list(prompt[:-3])) for row, prompt in zip(rows, prompts, strict=True)])
    collected = [[logits] for logits in first]
    late, late_ids, late_logits = Row(), tuple(rng.randrange(VOCAB) for _ in range(60)), []
    for at in (-3, -2, -1):
        work = [(row, [prompt[at]]) for row, prompt in zip(rows, prompts, strict=True)]
        work.insert(5, (late, list(late_ids[60 + 20 * at :][:20])))
        results = driver.step(work)
        late_logits.append(results.pop(5))
        for parts, logits in zip(collected, results, strict=True):
            parts.append(logits)
    for prompt, parts in zip(prompts, collected, strict=True):
        checkpoint.check(torch.cat(parts), prompt)
    checkpoint.check(torch.cat(late_logits), late_ids)


def prefix_hit_and_preemption(checkpoint: Checkpoint, driver: Driver, backend: Backend, rng: random.Random) -> None:
    """A second sequence starts from the first one's blocks; the first loses its own and is computed again in them."""
    block = backend.block_size
    first, tail = ([rng.randrange(VOCAB) for _ in range(count)] for count in (2 * block + 30, 25))
    owner = Row()
    driver.run(first[: 2 * block], row=owner)
    saved = owner.state
    driver.run(first[2 * block :], row=owner)
    hit = Row(table=owner.table[:2], computed=2 * block, state=saved)
    second = first[: 2 * block] + tail
    checkpoint.check(driver.run(tail, row=hit), second, start=2 * block)
    again = Row(table=list(reversed(owner.table)))
    parts = [driver.run(first[:-5], chunk=30, row=again)]
    parts += [driver.step([(again, [token])])[0] for token in first[-5:]]
    checkpoint.check(torch.cat(parts), first)


def greedy(checkpoint: Checkpoint, driver: Driver, prompt: list[int]) -> None:
    """64 tokens; each is the oracle's choice given the tokens before, unless its two best are a near-tie."""
    row, ids = Row(), list(prompt)
    logits = driver.run(prompt, row=row)[-1]
    for _ in range(64):
        ids.append(int(logits.argmax()))
        logits = driver.step([(row, ids[-1:])])[0][0]
    expected = checkpoint.expected(tuple(ids))[len(prompt) - 1 : -1]
    best = expected.topk(2, dim=-1)
    clear = best.values[:, 0] - best.values[:, 1] > TOLERANCE * expected.abs().max()
    assert clear.sum() >= 32, "random weights were meant to give clear choices"
    other = (clear & (torch.tensor(ids[len(prompt) :]) != best.indices[:, 0])).nonzero()
    assert not len(other) or len(prompt) - 1 + int(other[0]) >= checkpoint.first_jump(tuple(ids))
