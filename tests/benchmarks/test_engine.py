"""`benchmarks.engine`: what a step of one row reads of a mixture of experts, beside a dense model of that size."""

from __future__ import annotations

import json
import re

import pytest
from benchmarks.engine import beside_dense, dense_of_active_size

from tests.models.tiny import CASES, tiny_config
from tgi.kernels.native import footprint
from tgi.memory.cost import read_bytes
from tgi.models.build.decoder import build
from tgi.models.families.registry import spec_from_config
from tgi.models.spec import ModelSpec

EIGHT_OF_WHICH_TWO = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4, "vocab_size": 2000,
                      "num_local_experts": 8, "num_experts_per_tok": 2}  # fmt: skip


def spec_of(name: str, **changes: int) -> ModelSpec:
    return spec_from_config(json.loads(tiny_config(name, **changes).to_json_string()), warn=False)


def ratio(spec: ModelSpec, quantize: str | None = None) -> float | None:
    read = read_bytes(build(spec), "bfloat16", footprint, quantize)
    said = re.search(r"\(([0-9.]+) times", beside_dense(spec, read, "bfloat16", footprint, quantize))
    return float(said[1]) if said else None


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
def test_eight_experts_of_which_two_are_used(quantize: str | None) -> None:
    spec = spec_of("mixtral", **EIGHT_OF_WHICH_TWO)
    found = ratio(spec, quantize)
    assert found is not None and 1 < found < 1.05
    dense = dense_of_active_size(spec)
    assert all(layer.experts is None and layer.feedforward.inner == 2 * 1024 for layer in dense.layers)


def test_every_mixture() -> None:
    """The tiny ones too, of whose weights routers are a large part."""
    found = {name: ratio(spec_of(name)) for name in CASES}
    mixtures = {name: one for name, one in found.items() if one is not None}
    assert {"mixtral", "deepseek_v3", "gpt_oss", "llama4", "gemma4-experts"} <= set(
        mixtures
    ) and "qwen3" not in mixtures
    assert all(1 < one < 1.2 for one in mixtures.values()), mixtures
