"""Stored formats with families of models, by pairs: a checkpoint in codes computes what its dequantised one does.

Each family meets a format or two in every run, and each format several; the slow ones are all pairs.
"""

from __future__ import annotations

import json
import zlib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.engine.harness import LocalEngine
from tests.models import seq2seq
from tests.models.checkpoints import FAMILIES as WITH_TOKENIZER
from tests.models.checkpoints import make_checkpoint
from tests.models.driver import Driver
from tests.models.tiny import write_tiny
from tests.quant import writers
from tests.quant.test_formats import named
from tgi.kernels.select import select
from tgi.models.build.decoder import build
from tgi.models.config_reader import read_config
from tgi.models.families.registry import spec_from_config
from tgi.models.loader import load_model

FORMATS = {
    "gptq": writers.gptq(4, 16),
    "gptq act-order": writers.gptq(4, 16, act_order=True),
    "gptq 2 bits": writers.gptq(2, 16),
    "gptq 3 bits": writers.gptq(3, 16),
    "awq": writers.awq(16),
    "nf4": writers.four_bits(nested=True),
    "int8": writers.eight_bits,
    "fp8": writers.floats("channel"),
    "compressed-tensors": writers.compressed(4, 16, symmetric=False),
    "hqq": writers.hqq(4, 16),
    "torchao": writers.torchao_int8(16, zeros=True),
}
DECODERS = (
    *("llama", "gpt2", "gpt_neox", "bloom", "gemma2", "qwen3", "phi3", "opt", "gpt_bigcode", "falcon-40b", "mpt"),
    *("olmo2", "starcoder2", "mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v2", "glm4_moe", "mamba2", "qwen3_next"),
)
"""One of each way of storing matrices: apart, stacked, transposed, by experts, recurrent."""
WITH_ENCODER = ("t5", "bart", "m2m_100")
FAMILIES = (*DECODERS, *WITH_ENCODER)
UNFIT = {("gptq 3 bits", family) for family in ("bloom", "mpt", "mamba2", "qwen3_next")} | {("gptq 2 bits", "mamba2")}
"""Pairs whose small matrices do not fill the format's words."""
PAIRS = [
    pytest.param(family, format, marks=() if (number - place) % len(FORMATS) == 0 else pytest.mark.slow)
    for (place, family), (number, format) in product(enumerate(FAMILIES), enumerate(FORMATS))
    if (format, family) not in UNFIT
]


WIDER: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 64, "n_head": 4},
    "gpt_neox": {"hidden_size": 96, "intermediate_size": 128},
    "gemma2": {"hidden_size": 64, "intermediate_size": 96},
}
"""Of models whose columns make no whole groups."""


def write_plain(path: Path, family: str) -> None:
    if family in WITH_ENCODER:
        sizes = {"d_ff": 96} if family == "t5" else {"encoder_ffn_dim": 96, "decoder_ffn_dim": 64}
        seq2seq.write_tiny(path, family, d_model=64, **sizes)
    elif family in WITH_TOKENIZER:
        make_checkpoint(path, family, **WIDER.get(family, {}))
    else:
        write_tiny(path, family)


WHOLE = {"gptq 2 bits": 16, "gptq 3 bits": 32}
"""Rows and columns that fill words."""


def layers_of(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, bool]:
    """Stored matrices that are layers alone -> whether they are transposed."""
    weights = list(build(spec_from_config(read_config(path))).weights())
    others = {
        name for weight in weights if weight.role != "layer" or weight.within is not None for name in weight.names
    }
    return {
        stored: weight.transposed
        for weight in weights
        for module in weight.names
        for stored in tensors
        if module not in others and stored.endswith(f"{module}.weight")
    }


def quantised(path: Path, family: str, format: str) -> int:
    """`plain` and `coded` of a family below path; how many matrices are in codes."""
    for name in ("plain", "coded"):
        write_plain(path / name, family)
    tensors = load_file(path / "plain" / "model.safetensors")
    coded, plain, settings, draw = dict(tensors), dict(tensors), {}, np.random.default_rng(zlib.crc32(family.encode()))
    for name, transposed in layers_of(path / "plain", tensors).items():
        rows, columns = tensors[name].shape[::-1] if transposed else tensors[name].shape
        if rows % WHOLE.get(format, 8) or columns % WHOLE.get(format, 16):
            continue  # the formats' words would not be full: left as it is
        written = FORMATS[format](
            rows, columns, draw
        )  # of transposed ones all write the matrix that is multiplied with
        del coded[name]
        coded |= named(name.removesuffix(".weight"), written.tensors)
        plain[name], settings = written.matrix.T if transposed else written.matrix, written.settings
    save_file({name: tensor.contiguous() for name, tensor in coded.items()}, path / "coded" / "model.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in plain.items()}, path / "plain" / "model.safetensors")
    config = read_config(path / "coded") | {"quantization_config": settings}
    (path / "coded" / "config.json").write_text(json.dumps(config))
    return sum(not torch.equal(plain[name], tensors[name]) for name in tensors)


def outputs(path: Path, family: str, *, native: bool) -> torch.Tensor:
    """Logits, or of a model with an encoder the log-probabilities of its answer."""
    if family in WITH_ENCODER:
        session = LocalEngine(path, native_kernels=native, dtype="float32").session()
        session.add(0, list(range(5, 25)), 8)
        session.drain()
        return torch.tensor([[t.id, t.logprob] for event in session.events[0, 0] for t in event.tokens])
    backend = select(torch.device("cpu"), torch.float32, threads=2 if native else None)
    return Driver(load_model(path, "float32", backend), backend).run(list(range(5, 35)))


@pytest.mark.parametrize(("family", "format"), PAIRS)
def test_what_the_codes_stand_for_is_computed(family: str, format: str, tmp_path: Path) -> None:
    count = quantised(tmp_path, family, format)
    assert count >= 4, "matrices were meant to be in codes"
    expected = outputs(tmp_path / "plain", family, native=False)
    for native in (False, True):
        found = outputs(tmp_path / "coded", family, native=native)
        assert (found - expected).abs().max() <= 2e-3 * expected.abs().max()
