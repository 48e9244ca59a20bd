"""Paged attention against a loop over rows and heads, on random batches of every kind of row."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest
import torch

from tests.models.driver import make_paging
from tgi.kernels.program import CacheLayer
from tgi.kernels.reference import attention as reference_attention
from tgi.kernels.reference.attention import Span, attention, plan_attention
from tgi.kernels.reference.cache import store_kv
from tgi.kernels.select import select
from tgi.kernels.types import Backend, CacheShape, KVCache, Paging

CPU = torch.device("cpu")


@dataclass
class Scene:
    """A random batch: queries, a filled cache, and the plain keys and values of each sequence."""

    backend: Backend
    paging: Paging
    cache: KVCache
    queries: torch.Tensor
    keys: list[torch.Tensor]  # of each sequence [context, kv_heads, head_dim]
    values: list[torch.Tensor]
    scale: float

    def run(self, window: int | None, chunk: int | None = None, **options) -> torch.Tensor:
        return attention(self.queries, self.cache, 1, self.plan(window, chunk), self.scale, **options)

    def plan(self, window: int | None, chunk: int | None = None) -> reference_attention.Plan:
        return plan_attention(self.backend.block_size, self.paging, Span(window, chunk))


def make_scene(rng: random.Random, lens: list[tuple[int, int]], block_size: int, heads: int, kv_heads: int) -> Scene:
    """lens: (rows, context) of each sequence. Blocks that no sequence uses hold noise."""
    backend = select(CPU, torch.float32, block_size)
    head_dim = rng.choice([8, 20, 64])
    blocks = [-(-context // block_size) for _, context in lens]
    order = list(range(sum(blocks) + 3))
    rng.shuffle(order)
    tables = [[order.pop() for _ in range(count)] for count in blocks]
    cache = backend.allocate_cache(CacheShape((CacheLayer(kv_heads, head_dim),) * 2, torch.float32), sum(blocks) + 3)
    for store in (*cache.keys, *cache.values):
        store.normal_(0, 50)
    keys = [torch.randn(context, kv_heads, head_dim) for _, context in lens]
    values = [torch.randn(context, kv_heads, head_dim) for _, context in lens]
    everything = make_paging(tables, [0] * len(lens), [context for _, context in lens], block_size)
    store_kv(cache.keys[1], torch.cat(keys), everything.slots)
    store_kv(cache.values[1], torch.cat(values), everything.slots)
    paging = make_paging(tables, [context - rows for rows, context in lens], [rows for rows, _ in lens], block_size)
    queries = torch.randn(sum(rows for rows, _ in lens), heads, head_dim)
    return Scene(backend, paging, cache, queries, keys, values, rng.uniform(0.1, 0.5))


def naive(
    scene: Scene,
    window: int | None,
    soft_cap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    chunk: int | None = None,
) -> torch.Tensor:
    """One row and one head at a time, in float64."""
    heads = scene.queries.shape[1]
    rows, at = [], 0
    for keys, values, count, context in zip(
        scene.keys, scene.values, scene.paging.query_lens, scene.paging.context_lens, strict=True
    ):
        group = heads // keys.shape[1]
        for position in range(context - count, context):
            first = 0 if window is None else max(0, position - window + 1)
            first = position // chunk * chunk if chunk else first
            outs = []
            for head in range(heads):
                q = scene.queries[at, head].double()
                scores = keys[first : position + 1, head // group].double() @ q * scene.scale
                if soft_cap is not None:
                    scores = soft_cap * torch.tanh(scores / soft_cap)
                if alibi_slopes is not None:
                    scores += alibi_slopes[head].double() * (torch.arange(first, position + 1) - position)
                if sinks is not None:
                    scores = torch.cat((scores, sinks[head : head + 1].double()))
                outs.append(
                    scores.softmax(0)[: position + 1 - first] @ values[first : position + 1, head // group].double()
                )
            rows.append(torch.cat(outs))
            at += 1
    return torch.stack(rows).float()


MIXES = {
    "decode": lambda rng: [(1, rng.randint(1, 150)) for _ in range(9)],
    "one row of context one": lambda rng: [(1, 1)],
    "whole prompts": lambda rng: [(n, n) for n in (rng.randint(2, 90), 1, 33)],
    "chunks after a prefix": lambda rng: [(rng.randint(2, 30), rng.randint(60, 120)) for _ in range(3)],
    "all at once": lambda rng: [(1, 77), (40, 40), (1, 5), (7, 95), (2, 33), (1, 64), (64, 128)],
}
FEATURES = {
    "plain": {},
    "soft cap": {"soft_cap": 5.0},
    "alibi": {"alibi_slopes": torch.tensor([2.0 ** -(8 * (i + 1) / 6) for i in range(6)])},
    "sinks": {"sinks": torch.linspace(-3, 9, 6)},
    "both": {"soft_cap": 3.0, "alibi_slopes": torch.linspace(0.01, 0.5, 6)},
}


@pytest.fixture
def rng() -> random.Random:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    torch.manual_seed(seed)
    return random.Random(seed)


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("window", [None, "one", "random"])
def test_against_naive(mix: str, features: str, window: str | None, rng: random.Random) -> None:
    keys = {None: None, "one": 1, "random": rng.randint(2, 60)}[window]
    lens = MIXES[mix](rng)
    scene = make_scene(rng, lens, rng.choice([4, 16, 32]), heads=6, kv_heads=rng.choice([1, 2, 3, 6]))
    options = FEATURES[features]
    torch.testing.assert_close(scene.run(keys, **options), naive(scene, keys, **options), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mix", MIXES)
def test_chunks(mix: str, rng: random.Random) -> None:
    scene = make_scene(rng, MIXES[mix](rng), 16, heads=6, kv_heads=2)
    for chunk in (1, 16, 37):
        for options in ({}, {"soft_cap": 5.0}):
            wanted = naive(scene, None, chunk=chunk, **options)
            torch.testing.assert_close(scene.run(None, chunk, **options), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; never ran on one")
@pytest.mark.parametrize("mix", MIXES)
def test_against_naive_on_cuda(mix: str, rng: random.Random) -> None:
    """The same plan with tensors on the device; TF32 is off by default."""
    scene = make_scene(rng, MIXES[mix](rng), 32, heads=6, kv_heads=2)
    for window, options in ((None, {}), (40, {"soft_cap": 5.0})):
        expected = naive(scene, window, **options)
        paging = Paging(*(value.cuda() if isinstance(value, torch.Tensor) else value
                          for value in (getattr(scene.paging, name) for name in Paging.__slots__)))  # fmt: skip
        backend = select(torch.device("cuda"), torch.float32, 32)
        cache = backend.allocate_cache(scene.cache.shape, scene.cache.num_blocks)
        for target, source in zip((*cache.keys, *cache.values), (*scene.cache.keys, *scene.cache.values), strict=True):
            target.copy_(source)
        moved = Scene(backend, paging, cache, scene.queries.cuda(), scene.keys, scene.values, scene.scale)
        torch.testing.assert_close(moved.run(window, **options).cpu(), expected, rtol=1e-3, atol=1e-4)


def test_split_into_pieces_and_groups(rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bounds made small, many pieces and groups give the same result."""
    monkeypatch.setattr(reference_attention, "DECODE_KEYS", 200)
    monkeypatch.setattr(reference_attention, "PIECE_SCORES", 700)
    monkeypatch.setattr(reference_attention, "MIN_PIECE", 3)
    lens = [(1, rng.randint(1, 150)) for _ in range(12)] + [(50, 120), (80, 80)]
    rng.shuffle(lens)
    scene = make_scene(rng, lens, 16, heads=6, kv_heads=2)
    for window in (None, 25):
        plan = scene.plan(window)
        assert len(plan.decode) > (1 if window else 2)
        assert all(len(chunk.pieces) > 3 for chunk in plan.prefill)
        torch.testing.assert_close(scene.run(window), naive(scene, window), rtol=1e-4, atol=1e-5)


def test_window_skips_blocks_out_of_sight(rng: random.Random) -> None:
    """Neither gathers more than the window and the rows need, however long the context."""
    scene = make_scene(rng, [(1, 500), (1, 20), (10, 400)], 16, heads=4, kv_heads=2)
    plan = scene.plan(32)
    assert all(group.blocks.shape[1] <= 3 for group in plan.decode)
    assert all(len(chunk.blocks) <= 4 for chunk in plan.prefill)
    torch.testing.assert_close(scene.run(32), naive(scene, 32), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("features", ["plain", "soft cap"])
def test_garbage_of_others_stays_with_them(features: str, rng: random.Random) -> None:
    """NaN and infinity in blocks and slots that a sequence does not own must not reach it."""
    scene = make_scene(rng, [(1, 5), (1, 40), (3, 10)], 16, heads=6, kv_heads=2)
    expected = scene.run(None, **FEATURES[features])
    owned = torch.zeros(scene.cache.num_blocks * 16, dtype=torch.bool)
    tables = scene.paging.block_tables.tolist()
    for table, context in zip(tables, scene.paging.context_lens, strict=True):
        owned[[table[p // 16] * 16 + p % 16 for p in range(context)]] = True
    for store in (scene.cache.keys[1], scene.cache.values[1]):
        flat = store.view(-1, *store.shape[2:])
        flat[~owned] = torch.where(torch.rand(flat[~owned].shape) < 0.5, math.nan, math.inf)
    got = scene.run(None, **FEATURES[features])
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_own_nan_is_seen(rng: random.Random) -> None:
    """A sequence whose own keys are broken must not get a plausible answer, and its neighbours must."""
    scene = make_scene(rng, [(1, 5), (1, 40)], 16, heads=6, kv_heads=2)
    expected = scene.run(None)
    scene.cache.values[1][int(scene.paging.block_tables[0, 0]), 2] = math.nan
    got = scene.run(None)
    assert torch.isnan(got[0]).any()
    torch.testing.assert_close(got[1], expected[1], rtol=1e-4, atol=1e-5)


def test_bfloat16(rng: random.Random) -> None:
    """Rounding of inputs and output only: 2 % of the largest value."""
    scene = make_scene(rng, [(1, 77), (40, 40), (1, 5), (7, 95)], 32, heads=6, kv_heads=2)
    expected = naive(scene, None)
    shape = scene.cache.shape
    narrow = scene.backend.allocate_cache(CacheShape(shape.layers, torch.bfloat16), scene.cache.num_blocks)
    for target, source in zip((*narrow.keys, *narrow.values), (*scene.cache.keys, *scene.cache.values), strict=True):
        target.copy_(source)
    plan = scene.plan(None)
    got = attention(scene.queries.bfloat16(), narrow, 1, plan, scene.scale)
    assert got.dtype == torch.bfloat16
    assert (got.float() - expected).abs().max() <= 0.02 * expected.abs().max()
