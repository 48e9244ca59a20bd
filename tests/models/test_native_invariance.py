"""A sequence's logits have the same bits alone, in any batch, with any chunking, at any number of threads.

So that a request's text never depends on its neighbours or on a prefix hit. And how far rounding to 8 and 4
bits moves the logits.
"""

from __future__ import annotations

import random
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import torch

from tests.models.checkpoints import context_key, make_checkpoint
from tests.models.driver import Driver, Row
from tgi.kernels.native.backend import NativeBackend
from tgi.kernels.select import select
from tgi.kernels.types import cache_dtype
from tgi.models.loader import load_model

VOCAB = 384
CPU = torch.device("cpu")
LENGTH = 300  # more than one piece of attention

KINDS = {
    "llama-float32": ("llama", "float32", None, None, {}),
    "llama-bfloat16": ("llama", "bfloat16", None, None, {}),
    "llama-float16": ("llama", "float16", None, None, {}),
    "llama-int8": ("llama", "bfloat16", "int8", None, {}),
    "llama-int8-cache-int8": ("llama", "bfloat16", "int8", "int8", {"tie_word_embeddings": True}),
    "llama-int4": ("llama", "bfloat16", "int4", None, {}),
    "llama-int5-tied": ("llama", "bfloat16", "int5", None, {"tie_word_embeddings": True}),
    "qwen2-int6": ("qwen2", "bfloat16", "int6", None, {}),
    "mistral-window-int4-cache-int8": ("mistral", "float32", "int4", "int8", {"sliding_window": 45}),
    "gpt2-int8": ("gpt2", "bfloat16", "int8", None, {}),
    "qwen2-bfloat16-cache-int8": ("qwen2", "bfloat16", None, "int8", {}),
    "gpt_neox-int8": ("gpt_neox", "bfloat16", "int8", None, {}),
    "bloom-int4-cache-int8": ("bloom", "bfloat16", "int4", "int8", {}),
    "llama-int4-cache-fp8": ("llama", "bfloat16", "int4", "fp8_e4m3fn", {}),
    "qwen2-bfloat16-cache-fp8": ("qwen2", "bfloat16", None, "fp8_e5m2", {}),
    "gemma2-bfloat16-cache-int8": ("gemma2", "bfloat16", None, "int8", {}),
    "qwen2-int8-float-activations": ("qwen2", "bfloat16", "int8", None, {}, "float32"),
    "llama-nf4-cache-int8": ("llama", "bfloat16", "bitsandbytes-nf4", "int8", {}),
    "gpt2-eetq": ("gpt2", "bfloat16", "eetq", None, {}),
    "llama-int4-float-activations": ("llama", "bfloat16", "int4", None, {}, "float32"),
}


def open_model(
    path: Path, dtype: str, quantize: str | None, cache: str | None, threads: int, activations: str = "int8"
) -> Driver:
    backend = select(CPU, getattr(torch, dtype), threads=threads)
    if not isinstance(backend, NativeBackend):
        pytest.skip("the native kernels were not built")
    loaded = load_model(path, dtype, backend, quantize=quantize, activations=activations)
    return Driver(loaded, backend, cache_dtype=None if cache is None else cache_dtype(cache))


def make(path: Path, family: str, overrides: dict) -> None:
    make_checkpoint(path, family, seed=1, vocab_size=VOCAB, **{context_key(family): 1024, **overrides})


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_in_every_way_of_computing(kind: str, tmp_path: Path) -> None:
    family, dtype, quantize, cache, overrides, *activations = KINDS[kind]
    make(tmp_path, family, overrides)
    rng = random.Random(kind)
    ids = [rng.randrange(VOCAB) for _ in range(LENGTH)]
    driver = open_model(tmp_path, dtype, quantize, cache, 2, *activations)
    expected = driver.run(ids)
    assert torch.isfinite(expected).all()

    for threads in (1, 3, 4):
        assert torch.equal(open_model(tmp_path, dtype, quantize, cache, threads, *activations).run(ids), expected)
    assert torch.equal(driver.run(ids, chunk=7), expected)
    row = Row()
    ends = [0, *accumulate([1, 31, 2, 64, 1, 1, 90]), LENGTH - 3, LENGTH - 2, LENGTH - 1, LENGTH]
    got = [driver.run(ids[begin:end], row=row) for begin, end in pairwise(ends)]
    assert torch.equal(torch.cat(got), expected)

    others = [(Row(), [rng.randrange(VOCAB) for _ in range(rng.randint(1, 60))]) for _ in range(17)]
    place = rng.randrange(17)
    batch = [*others[:place], (Row(), ids), *others[place:]]
    assert torch.equal(driver.step(batch)[place], expected), "in a batch of prompts"
    one, context = Row(), LENGTH - 8
    driver.run(ids[:context], row=one)
    for at in range(context, LENGTH):
        work = [(other, [rng.randrange(VOCAB)]) for other, _ in others[: rng.randint(0, 17)]]
        work.insert(min(place, len(work)), (one, [ids[at]]))
        index = next(i for i, (row, _) in enumerate(work) if row is one)
        assert torch.equal(driver.step(work)[index][0], expected[at]), "among decoding rows"


@pytest.mark.parametrize(
    ("quantize", "cache", "activations", "tolerance"),
    [
        ("int8", None, "int8", 0.05),
        ("int8", None, "float32", 0.05),
        (None, "int8", "int8", 0.02),
        (None, "fp8_e4m3fn", "int8", 0.06),
        (None, "fp8_e5m2", "int8", 0.12),
        ("int6", None, "int8", 0.15),
        ("int5", None, "int8", 0.25),
        ("int4", None, "int8", 0.45),
        ("int4", None, "float32", 0.45),
    ],
)
def test_rounding_moves_logits_little(
    quantize: str | None, cache: str | None, activations: str, tolerance: float, tmp_path: Path
) -> None:
    """Root mean square of the error over that of the logits; random weights are the worst case for four bits."""
    make(tmp_path, "llama", {})
    ids = [random.Random(3).randrange(VOCAB) for _ in range(60)]
    exact = open_model(tmp_path, "float32", None, None, 2).run(ids)
    rounded = open_model(tmp_path, "float32", quantize, cache, 2, activations).run(ids)
    error = (rounded - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 0 < error < tolerance


@pytest.mark.parametrize(("cache", "tolerance"), [("int8", 0.01), ("fp8_e4m3fn", 1e-3), ("fp8_e5m2", 1e-3)])
def test_both_backends_round_the_cache_alike(cache: str, tolerance: float, tmp_path: Path) -> None:
    """Over int8 the native kernels also round queries and probabilities."""
    make(tmp_path, "llama", {})
    ids = [random.Random(4).randrange(VOCAB) for _ in range(60)]
    reference = select(CPU, torch.float32)
    rounded = Driver(load_model(tmp_path, "float32", reference), reference, cache_dtype=cache_dtype(cache))
    results = [driver.run(ids, chunk=13) for driver in (rounded, open_model(tmp_path, "float32", None, cache, 2))]
    assert (results[0] - results[1]).abs().mean() < tolerance * results[0].abs().mean()
