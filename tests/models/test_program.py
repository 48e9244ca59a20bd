"""Programs: what the builder and the passes write, and that both backends run the same, also in codes."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.models.checkpoints import FAMILIES, Family, make_checkpoint, make_config
from tests.models.driver import Driver
from tgi.kernels.native.backend import NativeBackend
from tgi.kernels.program import Add, Attention, Linear, StoreKV
from tgi.kernels.select import select
from tgi.models.build.decoder import build
from tgi.models.families.registry import spec_from_config
from tgi.models.loader import load_model
from tgi.models.passes.fuse import fuse_sums

CPU = torch.device("cpu")
TOKENS = [random.Random(5).randrange(384) for _ in range(90)]


@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_written_before_they_are_read(family: Family) -> None:
    program = build(spec_from_config(make_config(family)))
    written: set[str] = set()
    for op in program.ops:
        out, x = getattr(op, "out", None), getattr(op, "x", None)
        assert x is None or x in written, op
        written |= {out} if out else set()
        if isinstance(op, StoreKV | Attention):
            assert program.cache[op.layer].kv_heads == op.kv_heads
        if isinstance(op, Linear):
            assert program.values[op.x] == op.weight.columns and program.values[op.out] == op.weight.rows
    assert program.result in written and written == set(program.values)


def test_layers_of_other_widths_have_values_of_their_own() -> None:
    spec = spec_from_config(make_config("llama"))
    first, *rest = spec.layers
    narrow = replace(
        first,
        attention=replace(first.attention, heads=2, kv_heads=1),
        feedforward=replace(first.feedforward, inner=48),
    )
    program = build(replace(spec, layers=(narrow, *rest)))
    assert program.values["up"] == 96 and program.values["up_224"] == 224
    assert [layer.kv_heads for layer in program.cache] == [1, 2, 2]


def test_only_products_that_nobody_else_reads_are_fused() -> None:
    plain, gemma = (build(spec_from_config(make_config(family))) for family in ("llama", "gemma2"))
    assert sum(isinstance(op, Linear) and op.add for op in plain.ops) == 6  # two a layer
    assert not any(isinstance(op, Add) for op in plain.ops)
    assert not any(isinstance(op, Linear) and op.add for op in gemma.ops), "a norm stands between product and sum"
    assert fuse_sums(plain) == plain


@pytest.mark.parametrize("quantize", ["int8", "int5", "int4"])
@pytest.mark.parametrize("activations", ["int8", "float32"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_codes_in_both_backends(family: Family, activations: str, quantize: str, tmp_path: Path) -> None:
    """`--quantize` without native kernels: the same rounding, dequantised; and near what the kernels compute."""
    make_checkpoint(tmp_path, family, vocab_size=384, std=0.1)
    native = select(CPU, torch.float32, threads=2)
    if not isinstance(native, NativeBackend):
        pytest.skip("the native kernels were not built")
    outs = {}
    for name, backend, wanted in (
        ("native", native, quantize),
        ("reference", select(CPU, torch.float32), quantize),
        ("plain", select(CPU, torch.float32), None),
    ):
        loaded = load_model(tmp_path, "float32", backend, quantize=wanted, activations=activations)
        outs[name] = Driver(loaded, backend).run(TOKENS, chunk=40)
    # Over all rows: where an activation lies between two codes, backends may round it to either, which moves that row
    # and those after it, in 8 bits by half of what all rounding moves. Activations as they are leave no such choice.
    largest = outs["plain"].square().mean().sqrt()
    rounding = (outs["reference"] - outs["plain"]).square().mean().sqrt() / largest
    between = (outs["native"] - outs["reference"]).square().mean().sqrt() / largest
    allowed = max(0.25 * rounding, 1e-2) if activations == "int8" else 1e-4
    assert between < allowed, f"{between:.1e} between backends, rounding moves {rounding:.1e}"
    outlier, moved = (
        (outs[one] - outs[other]).abs().max() for one, other in (("native", "reference"), ("reference", "plain"))
    )
    assert outlier < max(moved, 1e-3 * outs["plain"].abs().max()), (
        f"a logit differs by {outlier:.1e}, rounding moves {moved:.1e}"
    )
    assert rounding > 1e-4


def test_programs_need_no_torch() -> None:
    code = (
        "import sys, tgi.kernels.program, tgi.models.build.decoder, tgi.models.passes.fuse, tgi.memory.cost, "
        "tgi.quant.formats; assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={"PYTHONPATH": "src"})
