"""The memory plan of quantised checkpoints beside what native kernels take for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.quant import writers
from tests.quant.test_formats import quantised
from tgi.kernels.native import footprint as native
from tgi.kernels.reference import footprint as reference
from tgi.kernels.select import select
from tgi.kernels.weight import Weight
from tgi.memory.cost import weight_bytes
from tgi.models.build.decoder import build
from tgi.models.config_reader import read_config
from tgi.models.families.registry import spec_from_config
from tgi.models.loader import load_model
from tgi.models.stored import stored_of
from tgi.quant.checkpoint import Stored
from tgi.quant.planned import stored_bits

KINDS = {
    "gptq": writers.gptq(4, 32),
    "gptq 8 bits": writers.gptq(8, 64),
    "awq": writers.awq(32),
    "nf4": writers.four_bits(),
    "int8": writers.eight_bits,
    "compressed-tensors": writers.compressed(4, 32, symmetric=False),
    "hqq": writers.hqq(4),
    "fp8": writers.floats(),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_plan_is_near_what_is_taken(name: str, tmp_path: Path) -> None:
    path = quantised(tmp_path, KINDS[name]) / "coded"
    config = read_config(path)
    program, stored = build(spec_from_config(config)), stored_of(path, config)
    backend = select(torch.device("cpu"), torch.bfloat16, threads=1)
    taken = load_model(path, "bfloat16", backend).step.weight_bytes
    planned = weight_bytes(program, "bfloat16", native, stored=stored)
    assert planned == pytest.approx(taken, rel=0.15)
    assert planned < 0.8 * weight_bytes(program, "bfloat16", reference, stored=stored)


LAYER = Weight(("m",), (64,), 1024)


@pytest.mark.parametrize(
    ("method", "settings", "bits"),
    [
        ("gptq", {"bits": 3, "group_size": 128}, 4 + 24 / 128),
        ("gptq", {"bits": 4, "group_size": -1}, 4 + 24 / 1024),
        ("gptq", {"bits": "four"}, None),
        ("awq", {"w_bit": 4, "q_group_size": 64}, 4 + 24 / 64),
        ("gguf", {"quantised": True, "bits": 4.9}, 4.9),
        ("gguf", {"quantised": True, "bits": 1e9}, None),
        ("gguf", {"quantised": False, "bits": 16.0}, None),
        ("fp8", {}, 8 + 32 / 1024),
        ("fp8", {"weight_block_size": [128, 128]}, 8 + 32 / 128),
        ("compressed-tensors", {"config_groups": {"a": {"weights": {"num_bits": 8, "type": "float"}}}}, 8 + 32 / 1024),
        ("compressed-tensors", {"config_groups": []}, None),
    ],
)
def test_bits_by_settings(method: str, settings: dict, bits: float | None) -> None:
    assert stored_bits(Stored(method, settings, "here"), LAYER) == bits
    assert stored_bits(None, LAYER) is None
