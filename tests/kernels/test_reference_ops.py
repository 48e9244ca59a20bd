"""Each reference operation against a formula written independently, in float64."""

from __future__ import annotations

import math
import os
import random
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from transformers.activations import ACT2FN

from tgi.kernels.host_memory import give_back, lazy_zeros
from tgi.kernels.program import CacheLayer, Op
from tgi.kernels.reference import ops as OPS
from tgi.kernels.reference.cache import gather, store_kv
from tgi.kernels.reference.step import RUN
from tgi.kernels.select import select
from tgi.kernels.types import CacheShape

CPU = torch.device("cpu")
BACKEND = select(CPU, torch.float32)


@pytest.fixture(autouse=True)
def seed() -> int:
    value = random.SystemRandom().randrange(1 << 32)
    print(f"seed {value}")
    torch.manual_seed(value)
    return value


def test_every_operation_is_named() -> None:
    assert BACKEND.kernels and set(BACKEND.kernels.values()) == {"reference"}
    assert set(RUN) == set(get_args(Op)), "the reference runs every operation"
    assert BACKEND.block_size == 32
    assert select(CPU, torch.float32, 16).block_size == 16


def test_embedding_and_linear() -> None:
    table, ids = torch.randn(11, 6), torch.tensor([3, 0, 10, 3])
    np.testing.assert_array_equal(OPS.embedding(ids, table).numpy(), table.numpy()[ids.numpy()])
    x, weight, bias = torch.randn(5, 6), torch.randn(7, 6), torch.randn(7)
    expected = x.double().numpy() @ weight.double().numpy().T
    np.testing.assert_allclose(OPS.linear(x, weight, None).numpy(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(OPS.linear(x, weight, bias).numpy(), expected + bias.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(OPS.add(x.clone(), x).numpy(), 2 * x.numpy())


def test_norms() -> None:
    x, scale, bias = torch.randn(5, 33) * 3 + 1, torch.randn(33), torch.randn(33)
    wide = x.double().numpy()
    rms = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-3) * scale.numpy()
    np.testing.assert_allclose(OPS.rms_norm(x, scale, 1e-3).numpy(), rms, rtol=1e-5, atol=1e-5)
    normal = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-3)
    expected = normal * scale.numpy() + bias.numpy()
    np.testing.assert_allclose(OPS.layer_norm(x, scale, bias, 1e-3).numpy(), expected, rtol=1e-5, atol=1e-5)
    unbiased = OPS.layer_norm(x, scale, None, 1e-3).numpy()
    np.testing.assert_allclose(unbiased, normal * scale.numpy(), rtol=1e-5, atol=1e-5)


def test_scale_and_soft_cap() -> None:
    x = torch.randn(5, 7) * 20
    np.testing.assert_allclose(OPS.scale(x.clone(), 2.5).numpy(), x.numpy() * 2.5, rtol=1e-6)
    expected = 6 * np.tanh(x.double().numpy() / 6)
    np.testing.assert_allclose(OPS.soft_cap(x.clone(), 6.0).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_rms_norm_does_not_round_a_wide_scale() -> None:
    x = torch.randn(4, 64).bfloat16()
    scale = 1 + torch.rand(64) * 2**-7  # all of it 1 or 1 + 2^-7 in bfloat16
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale
    got = OPS.rms_norm(x, scale, 1e-6)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, exact.bfloat16()) or (got.double() - exact).abs().max() < (exact.abs() * 2**-8).max()
    rounded = OPS.rms_norm(x, scale.bfloat16(), 1e-6)
    assert (got.double() - exact).square().sum() < 0.8 * (rounded.double() - exact).square().sum()


def test_rms_norm_works_in_float32() -> None:
    """bfloat16 squares of a wide row would lose the mean."""
    x = torch.randn(3, 4096).bfloat16()
    expected = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    got = OPS.rms_norm(x, torch.ones(4096, dtype=torch.bfloat16), 1e-6)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), expected, rtol=2**-8, atol=0)


@pytest.mark.parametrize("rotary_dim", [16, 8])
def test_rotary_turns_pairs(rotary_dim: int) -> None:
    """As complex numbers: pair (i, i + half) is multiplied by e^(i angle)."""
    x, angles = torch.randn(4, 3, 16), torch.randn(4, rotary_dim // 2) * 5
    half = rotary_dim // 2
    wide = x.double().numpy()
    turned = (wide[..., :half] + 1j * wide[..., half:rotary_dim]) * np.exp(1j * angles.double().numpy())[:, None]
    expected = np.concatenate([turned.real, turned.imag, wide[..., rotary_dim:]], -1)
    before = x.clone()
    got = OPS.rotary(x, angles.cos(), angles.sin())
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(x, before)
    view = torch.randn(4, 60)[:, 6:54].unflatten(-1, (3, 16))  # as it comes out of a fused projection
    torch.testing.assert_close(OPS.rotary(view, angles.cos(), angles.sin()),
                               OPS.rotary(view.contiguous(), angles.cos(), angles.sin()))  # fmt: skip


@pytest.mark.parametrize("name", sorted(OPS.ACTIVATIONS))
def test_activations(name: str) -> None:
    x = torch.randn(4, 10) * 3
    formulas = {
        "silu": lambda v: v / (1 + math.exp(-v)),
        "gelu": lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))),
        "gelu_new": lambda v: 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
        "quick_gelu": lambda v: v / (1 + math.exp(-1.702 * v)),
        "relu": lambda v: max(v, 0.0),
        "relu2": lambda v: max(v, 0.0) ** 2,
    }
    formula = np.vectorize(formulas["gelu_new" if name == "gelu_pytorch_tanh" else name])
    got = OPS.ACTIVATIONS[name](x)
    np.testing.assert_allclose(got.numpy(), formula(x.double().numpy()), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got, ACT2FN[name](x), rtol=1e-4, atol=1e-5)
    gate, up = x[:, :5], x[:, 5:]
    expected = formula(gate.double().numpy()) * up.double().numpy()
    np.testing.assert_allclose(OPS.gated(OPS.ACTIVATIONS[name], x).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_cache_bytes_are_what_is_allocated() -> None:
    shape = CacheShape((CacheLayer(kv_heads=2, head_dim=8),) * 3, torch.bfloat16)
    cache = BACKEND.allocate_cache(shape, 5)
    tensors = [*cache.keys, *cache.values]
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) == BACKEND.cache_bytes(shape, 5)
    assert BACKEND.cache_bytes(shape, 5) == 2 * 3 * 5 * 32 * 2 * 8 * 2
    assert all(not tensor.any() for tensor in tensors)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("threads", [None, 1])
def test_cache_memory_is_taken_when_it_is_used(threads: int | None) -> None:
    backend = select(CPU, torch.bfloat16, threads=threads)
    shape = CacheShape((CacheLayer(kv_heads=8, head_dim=128),) * 2, torch.bfloat16)
    size = backend.cache_bytes(shape, 4096)
    assert size == 1 << 30
    before = resident()
    cache = backend.allocate_cache(shape, 4096)
    assert cache.num_blocks == 4096
    stores = [*cache.keys, *cache.values]
    assert not any(store[1000].any() for store in stores)
    assert resident() - before < 50 << 20
    for store in stores:
        store[: 4096 // 8] = 1
    assert 120 << 20 < resident() - before < 200 << 20
    give_back(stores)
    assert resident() - before < 50 << 20
    assert not any(store[0].any() for store in stores)


def test_memory_that_cannot_be_had_is_an_error_of_torchs_kind() -> None:
    with pytest.raises(RuntimeError, match="cannot be mapped"):
        lazy_zeros(1 << 60)
    assert lazy_zeros(0).shape == (0,)


def test_store_kv_touches_its_slots_only() -> None:
    shape = CacheShape((CacheLayer(kv_heads=2, head_dim=4),) * 2, torch.float32)
    cache = BACKEND.allocate_cache(shape, 3)
    keys, values, slots = torch.randn(3, 2, 4), torch.randn(3, 2, 4), torch.tensor([95, 0, 33])
    store_kv(cache.keys[1], keys, slots)
    store_kv(cache.values[1], values, slots)
    for store, rows in ((cache.keys, keys), (cache.values, values)):
        assert not store[0].any()
        for row, (block, offset) in zip(rows, ((2, 31), (0, 0), (1, 1)), strict=True):
            assert torch.equal(store[1][block, offset], row)
        assert int(store[1].any(-1).any(-1).sum()) == 3


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8])
def test_a_cache_of_8_bits(dtype: torch.dtype) -> None:
    """Floats as torch converts them, what is larger becoming the largest; int8 with a scale for each row and head."""
    backend = select(CPU, torch.float32, 4)
    cache = backend.allocate_cache(CacheShape((CacheLayer(kv_heads=2, head_dim=6),), dtype), 3)
    rows = torch.randn(8, 2, 6) * 10.0 ** torch.randint(-3, 3, (8, 2, 1))
    rows[3, 1] = torch.tensor([1e9, -1e9, torch.inf, 0.0, -0.0, 1e-9])
    rows[4, 0, 2], rows[5] = torch.nan, 0
    store_kv(cache.keys[0], rows, torch.arange(2, 10))
    found = gather(cache.keys[0], torch.tensor([[0, 1, 2]]), torch.float32)[0].transpose(0, 1)[2:10]
    if dtype == torch.int8:
        wanted = torch.zeros_like(rows)
        for row in range(8):
            for head in range(2):
                x = rows[row, head].double().numpy()
                scale = np.abs(x).max() / 127
                wanted[row, head] = torch.from_numpy(np.rint(x / (scale or 1)) * scale if np.isfinite(scale) else x)
        finite = wanted.isfinite().all(-1)
        torch.testing.assert_close(found[finite], wanted[finite], rtol=1e-5, atol=0)
        assert found[4, 0].isnan().all() and not found[3, 1].isfinite().any()
    else:
        largest = torch.finfo(dtype).max
        wanted = torch.where(rows.abs() > largest, rows.sign() * largest, rows).to(dtype).float()
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
