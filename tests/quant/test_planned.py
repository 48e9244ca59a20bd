"""The memory plan of quantised checkpoints beside what native kernels take for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.checkpoints import make_checkpoint
from tests.models.test_gguf import write
from tests.quant import writers
from tests.quant.test_formats import change_config, quantised
from tgi.hub.gguf import make_model
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
from tgi.quant.planned import GGML_KEPT, stored_bits
from tgi.settings.flags import ROUNDINGS

KINDS = {
    "gptq": writers.gptq(4, 32),
    "gptq 8 bits": writers.gptq(8, 64),
    "gptq one group": writers.gptq(4, -1),
    "gptq 2 bits": writers.gptq(2, 32),
    "gptq 3 bits act-order": writers.gptq(3, 32, act_order=True),
    "awq": writers.awq(32),
    "nf4": writers.four_bits(),
    "int8": writers.eight_bits,
    "compressed-tensors": writers.compressed(4, 32, symmetric=False),
    "compressed-tensors int8": writers.compressed(8, None, packed=False),
    "compressed-tensors fp8": writers.floats("channel", method="compressed-tensors"),
    "hqq": writers.hqq(4),
    "fp8": writers.floats(),
    "torchao int8": writers.torchao_int8(),
    "torchao int4": writers.torchao_int4(),
}
TORCHAO = {
    "torchao int8": {"default": {"_type": "Int8WeightOnlyConfig", "_data": {"group_size": None}}},
    "torchao int4": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 32}}},
}


def planned_and_taken(path: Path, dtype: str, quantize: str | None = None) -> tuple[int, int]:
    config = read_config(path)
    program, stored = build(spec_from_config(config)), stored_of(path, config)
    backend = select(torch.device("cpu"), getattr(torch, dtype), threads=1)
    taken = load_model(path, dtype, backend, quantize=quantize).step.weight_bytes
    planned = weight_bytes(program, dtype, native, quantize, stored)
    if dtype == "bfloat16":
        assert planned < 0.8 * weight_bytes(program, dtype, reference, stored=stored)
    return planned, taken


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", KINDS)
def test_a_plan_is_near_what_is_taken(name: str, dtype: str, tmp_path: Path) -> None:
    """With float32 nothing is rounded: scales take twice as much, and what would have to be is dequantised."""
    path = quantised(tmp_path, KINDS[name]) / "coded"
    if name in TORCHAO:
        change_config(path, quantization_config={"quant_method": "torchao", "quant_type": TORCHAO[name]})
    planned, taken = planned_and_taken(path, dtype)
    assert planned == pytest.approx(taken, rel=0.15)


@pytest.mark.parametrize("quantize", ROUNDINGS)
def test_a_plan_of_what_is_rounded_on_the_fly(quantize: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "llama", hidden_size=256, intermediate_size=512, num_hidden_layers=2)
    planned, taken = planned_and_taken(tmp_path, "bfloat16", quantize)
    assert planned == pytest.approx(taken, rel=0.05)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("kind", GGML_KEPT)
def test_a_plan_of_a_gguf_file(kind: str, dtype: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "source", "llama", hidden_size=256, intermediate_size=256, num_hidden_layers=2)
    file = write(tmp_path / "source", tmp_path / "model.gguf", "llama", kind)
    planned, taken = planned_and_taken(Path(make_model([file], "m", [tmp_path / "cache"]).path), dtype)
    assert planned == pytest.approx(taken, rel=0.05)


LAYER = Weight(("m",), (64,), 1024)


@pytest.mark.parametrize(
    ("method", "settings", "bits"),
    [
        ("gptq", {"bits": 3, "group_size": 128}, 3 + 20 / 128),
        ("gptq", {"bits": 2, "group_size": 64}, 2 + 20 / 64),
        ("gptq", {"bits": 5, "group_size": 16}, 6 + 24 / 16),
        ("gptq", {"bits": 3, "group_size": 7}, 3 + 20 / 7),
        ("gptq", {"bits": 4, "group_size": -1}, 4 + 20 / 1024),
        ("gptq", {"bits": "four"}, None),
        ("awq", {"w_bit": 4, "q_group_size": 64}, 4 + 20 / 64),
        ("gguf", {"quantised": True, "bits": 4.9}, 4.9),
        ("gguf", {"quantised": True, "bits": 4.9, "kept_bits": {"bfloat16": 5.1, "float32": 6.1}}, 5.1),
        ("gguf", {"quantised": True, "bits": 1e9}, None),
        ("gguf", {"quantised": False, "bits": 16.0}, None),
        ("fp8", {}, 8 + 32 / 1024),
        ("fp8", {"weight_block_size": [128, 128]}, 8 + 32 / 128),
        ("compressed-tensors", {"config_groups": {"a": {"weights": {"num_bits": 8, "type": "float"}}}}, 8 + 32 / 1024),
        ("compressed-tensors", {"config_groups": []}, None),
        ("torchao", {"quant_type": "int4_weight_only", "quant_type_kwargs": {"group_size": 64}}, 4 + 32 / 64),
        ("torchao", {"quant_type": "float8_weight_only"}, 8 + 32 / 1024),
        ("torchao", {"quant_type": {"default": {}}}, None),
    ],
)
def test_bits_by_settings(method: str, settings: dict, bits: float | None) -> None:
    assert stored_bits(Stored(method, settings, "here"), LAYER, "bfloat16") == bits
    assert stored_bits(None, LAYER, "bfloat16") is None
