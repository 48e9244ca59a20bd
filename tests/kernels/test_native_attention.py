"""Native attention over the paged cache against a loop over rows and heads in float64.

The formula gets keys, values and queries as the cache rounds them, so that the tolerance covers float32 sums
only. Blocks that no sequence uses are filled with bytes that are not numbers.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import pytest
import torch

from tests.kernels.native_levels import ROUNDING_LEVELS, libraries, open_level
from tests.models.driver import make_paging
from tgi.kernels.native import cache as native
from tgi.kernels.native.library import Library, Pool
from tgi.kernels.program import CacheLayer
from tgi.kernels.types import CacheShape, EncoderKeys, KVCache, Paging

FLOATS_OF_8_BITS = [torch.float8_e4m3fn, torch.float8_e5m2]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int8]
EVERY_DTYPE = [*DTYPES, *FLOATS_OF_8_BITS]
"""Floats of 8 bits differ from others only in how they are stored and widened."""
TOLERANCE = 1e-5


@pytest.fixture(params=libraries())
def library(request) -> Library:
    return open_level(request.param)


@dataclass
class Scene:
    """A random batch: queries, a filled cache, and the keys and values of each sequence as the cache rounds them."""

    pool: Pool
    paging: Paging
    cache: KVCache
    queries: torch.Tensor
    keys: list[torch.Tensor]  # of each sequence [context, kv_heads, head_dim]
    values: list[torch.Tensor]
    scale: float

    def run(self, window: int | None = None, **options) -> torch.Tensor:
        return native.attention(
            self.pool, self.queries, self.cache, 1, self.paging, self.scale, window=window, **options
        )


def rounded(x: torch.Tensor, dtype: torch.dtype, header: bool = False) -> torch.Tensor:
    """x [..., head_dim] as the cache keeps it; header: its scale has 24 bits, as those of keys."""
    if dtype != torch.int8:
        return x.to(dtype).double()
    peak = x.abs().amax(-1, keepdim=True)
    codes = (x * (torch.full_like(peak, 127.0) / peak)).round().clamp(-127, 127)
    scale = peak / 127.0
    if header:
        scale = (scale.view(torch.int32) & -256).view(torch.float32)
    return codes.double() * scale.double()


def make_scene(
    library: Library,
    seed: int,
    lens: list[tuple[int, int]],
    dtype: torch.dtype,
    heads: int,
    kv_heads: int,
    dim: int,
    *,
    shared: bool = False,
) -> Scene:
    """lens: (rows, context) of each sequence. shared: the values are the keys."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    blocks = [-(-context // 32) for _, context in lens]
    order = list(range(sum(blocks) + 3))
    rng.shuffle(order)
    tables = [[order.pop() for _ in range(count)] for count in blocks]
    layers = (CacheLayer(kv_heads, dim, shared),) * 2
    cache = native.allocate_cache(library, CacheShape(layers, dtype), sum(blocks) + 3)
    if dim % 16 == 0:  # else the padding between heads must stay as allocated
        for store in (*cache.keys, *cache.values):
            store.fill_(0xFF)
    keys = [torch.randn((context, kv_heads, dim), generator=generator) for _, context in lens]
    values = [torch.randn((context, kv_heads, dim), generator=generator) for _, context in lens]
    everything = make_paging(tables, [0] * len(lens), [context for _, context in lens], 32)
    native.store_kv(library, cache, 1, torch.cat(keys), torch.cat(values), everything.slots)
    paging = make_paging(tables, [context - rows for rows, context in lens], [rows for rows, _ in lens], 32)
    queries = torch.randn((sum(rows for rows, _ in lens), heads, dim), generator=generator)
    keys, values = [rounded(x, dtype, header=True) for x in keys], [rounded(x, dtype) for x in values]
    values = keys if shared else values
    return Scene(Pool(library, 2), paging, cache, queries, keys, values, rng.uniform(0.1, 0.3))


def holds_int8(scene: Scene) -> bool:
    return scene.cache.shape.dtype == torch.int8


def rounds_halves(scene: Scene) -> bool:
    """Whether pairs of bfloat16 are multiplied, for which queries and weights are rounded."""
    return scene.pool.library.level in ROUNDING_LEVELS and scene.cache.shape.dtype == torch.bfloat16


def round_weights(scores: torch.Tensor, first: int, scales: torch.Tensor | None = None) -> torch.Tensor:
    """exp(scores) [heads, keys] rounded relative to the largest of each piece of 256 positions; first: position.

    To bfloat16, or with the scales [heads, keys] of int8 values: times those, to 1 / 16,256 of the largest product.
    """
    parts, begin = [], 0
    while begin < scores.shape[1]:
        end = min((first + begin) // 256 * 256 + 256 - first, scores.shape[1])
        piece = scores[:, begin:end]
        peak = piece.amax(-1, keepdim=True)
        weights = (piece - peak).exp()
        if scales is None:
            weights = weights.bfloat16().double()
        else:
            scaled = weights * scales[:, begin:end]
            unit = scaled.amax(-1, keepdim=True) / 16_256
            weights = (scaled / unit).round() * unit / scales[:, begin:end]
        parts.append(weights * peak.exp())
        begin = end
    return torch.cat(parts, 1)


def naive(
    scene: Scene,
    window: int | None = None,
    soft_cap: float | None = None,
    alibi_slopes=None,
    sinks=None,
    chunk=None,
    sees="before",
    bias=None,
) -> torch.Tensor:
    tokens, heads, dim = scene.queries.shape
    halves = rounds_halves(scene)
    queries = rounded(scene.queries, scene.cache.shape.dtype if halves or holds_int8(scene) else torch.float32)
    out = torch.empty((tokens, heads, dim), dtype=torch.float64)
    row = 0
    for sequence, (count, context) in enumerate(zip(scene.paging.query_lens, scene.paging.context_lens, strict=True)):
        group = heads // scene.cache.shape.layers[1].kv_heads
        keys = scene.keys[sequence].repeat_interleave(group, 1)  # [context, heads, dim]
        values = scene.values[sequence].repeat_interleave(group, 1)
        for position in range(context - count, context):
            first = max(0, position - window + 1) if window else position // chunk * chunk if chunk else 0
            past = position + 1 if sees == "before" else context
            scores = torch.einsum("hd,khd->hk", queries[row], keys[first:past]) * scene.scale
            if soft_cap:
                scores = soft_cap * (scores / soft_cap).tanh()
            if alibi_slopes is not None:
                scores = scores + alibi_slopes[:, None] * (torch.arange(first, past) - position)
            if bias is not None:
                furthest = bias.shape[1] // 2
                scores = scores + bias[:, (torch.arange(first, past) - position).clamp(-furthest, furthest) + furthest]
            largest = scores.amax(-1, keepdim=True)
            scores -= largest
            weights = scores.exp()
            if (halves or holds_int8(scene)) and not scene.cache.shape.layers[1].shared:
                scales = values[first:past].abs().amax(-1).T / 127 if holds_int8(scene) else None
                weights = round_weights(scores, first, scales)
            rest = 0 if sinks is None else (sinks[:, None] - largest).exp()
            weights = weights / (scores.exp().sum(-1, keepdim=True) + rest)
            out[row] = torch.einsum("hk,khd->hd", weights, values[first:past])
            row += 1
    return out.flatten(1)


def check(scene: Scene, found: torch.Tensor, wanted: torch.Tensor) -> None:
    error = (found.double() - wanted).abs().max() / wanted.abs().max()
    # A weight that lies between two numbers of bfloat16, or two codes, may go either way.
    assert error < (5e-4 if rounds_halves(scene) else 1e-4 if holds_int8(scene) else TOLERANCE)


MIXED = [(1, 1), (1, 31), (1, 33), (1, 300), (5, 5), (7, 40), (33, 290), (1, 256), (1, 513), (2, 258), (40, 40)]
SHAPES = [(9, 3, 64), (14, 2, 64), (4, 4, 80), (8, 1, 128), (3, 1, 20), (2, 2, 7), (32, 1, 16)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("furthest", [None, 3, 20, 300])
@pytest.mark.parametrize("sees", ["before", "all", "encoder"])
def test_all_keys_and_a_bias_by_distance(library, dtype, furthest, sees):
    """Encoders, decoders that attend to what one left, and T5's bias in each of them."""
    scene = make_scene(library, 5, MIXED, dtype, 4, 2, 24)
    if sees == "encoder":  # the decoder's own keys are not looked at
        own = scene.paging
        scene.paging = replace(
            own,
            block_tables=torch.zeros_like(own.block_tables),
            encoder=EncoderKeys(own.block_tables, own.context_lens, own.contexts),
        )
    bias = None if furthest is None else torch.randn((4, 2 * furthest + 1), generator=torch.Generator().manual_seed(1))
    check(scene, scene.run(sees=sees, bias=bias), naive(scene, sees=sees, bias=bias))


def test_many_small_weights_beside_a_large_one_are_not_lost(library):
    """255 of a piece that weigh a thousandth of its largest each: a quarter of the result."""
    scene = make_scene(library, 1, [(1, 256)], torch.int8, 1, 1, 64)
    keys, values = torch.zeros((256, 1, 64)), torch.rand((256, 1, 64)) + 0.5
    keys[:, 0, 1] = 1.0
    keys[17, 0, 0], values[17] = 1.0, 1e-6
    table = scene.paging.block_tables.tolist()
    native.store_kv(library, scene.cache, 1, keys, values, make_paging(table, [0], [256], 32).slots)
    scene.queries[:] = 0.0
    scene.queries[0, 0, 0] = math.log(1000) / scene.scale
    scene.keys[0], scene.values[0] = rounded(keys, torch.int8, header=True), rounded(values, torch.int8)
    wanted = naive(scene)
    assert wanted.min() > 0.1
    torch.testing.assert_close(scene.run().double(), wanted, rtol=0.02, atol=0)


@pytest.mark.parametrize("dtype", EVERY_DTYPE)
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), SHAPES)
def test_mixed_batches(library, dtype, heads, kv_heads, dim):
    scene = make_scene(library, heads * dim, MIXED, dtype, heads, kv_heads, dim)
    check(scene, scene.run(), naive(scene))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 5, 32, 100, 260, 1000])
def test_windows(library, dtype, window):
    scene = make_scene(library, window, MIXED, dtype, 6, 2, 32)
    check(scene, scene.run(window), naive(scene, window))


@pytest.mark.parametrize("dtype", DTYPES)
def test_soft_cap_and_alibi(library, dtype):
    scene = make_scene(library, 1, MIXED, dtype, 6, 2, 32)
    slopes = torch.tensor([2.0 ** -(head + 1) for head in range(6)])
    check(scene, scene.run(soft_cap=3.0), naive(scene, soft_cap=3.0))
    check(scene, scene.run(alibi_slopes=slopes), naive(scene, alibi_slopes=slopes))
    check(scene, scene.run(50, soft_cap=3.0, alibi_slopes=slopes), naive(scene, 50, 3.0, slopes))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sinks_and_chunks(library, dtype):
    scene = make_scene(library, 2, MIXED, dtype, 6, 2, 32)
    sinks = torch.tensor([-30.0, -2.0, 0.0, 1.0, 4.0, 30.0])
    for options in ({"sinks": sinks}, {"chunk": 21}, {"chunk": 256}, {"chunk": 100, "sinks": sinks}):
        check(scene, scene.run(**options), naive(scene, **options))


@pytest.mark.parametrize("dtype", DTYPES)
def test_heads_as_wide_as_latents(library, dtype):
    scene = make_scene(library, 3, [(1, 300), (5, 33)], dtype, 16, 1, 576)
    check(scene, scene.run(), naive(scene))


@pytest.mark.parametrize("dtype", EVERY_DTYPE)
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(16, 1, 48), (6, 2, 64), (1, 1, 32), (3, 1, 20), (2, 2, 7)])
def test_values_that_are_the_keys(library, dtype, heads, kv_heads, dim):
    """The cache has them once. Positions that are not there hold what are no numbers."""
    scene = make_scene(library, heads, MIXED, dtype, heads, kv_heads, dim, shared=True)
    assert not any(part.nbytes for part in scene.cache.values)
    assert sum(part.nbytes for part in scene.cache.keys) == native.cache_bytes(
        library, scene.cache.shape, scene.cache.num_blocks
    )
    check(scene, scene.run(), naive(scene))
    check(scene, scene.run(50, soft_cap=3.0), naive(scene, 50, 3.0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_latents(library, dtype):
    scene = make_scene(library, 3, [(1, 300), (5, 33)], dtype, 16, 1, 576, shared=True)
    check(scene, scene.run(), naive(scene))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
@pytest.mark.parametrize("window", [None, 70, 300])
def test_a_row_has_the_same_bits_in_any_batch_chunk_and_number_of_threads(library, dtype, window, shared):
    """Whole prompts, every row alone (where pieces are split over threads), and 1 to 4 threads."""
    scene = make_scene(library, 5, [(600, 600), (530, 540)], dtype, 6, 2, 32, shared=shared)
    whole = scene.run(window)
    for threads in (1, 3, 4):
        assert torch.equal(replace(scene, pool=Pool(library, threads)).run(window), whole)
    starts = [0, 600, 1130]
    for row in [*range(0, 1130, 97), 599, 600, 1129]:
        sequence = int(row >= 600)
        position = int(scene.paging.positions[row])
        table = scene.paging.block_tables[sequence].tolist()
        paging = make_paging([table], [position], [1], 32)
        alone = replace(scene, paging=paging, queries=scene.queries[row : row + 1]).run(window)
        assert torch.equal(alone[0], whole[row]), row
    chunk = slice(starts[0] + 100, starts[0] + 137)
    paging = make_paging([scene.paging.block_tables[0].tolist()], [100], [37], 32)
    assert torch.equal(replace(scene, paging=paging, queries=scene.queries[chunk]).run(window), whole[chunk])


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_scores_do_not_overflow(library, dtype):
    scene = replace(make_scene(library, 9, [(3, 300)], dtype, 2, 2, 16), scale=500.0)
    found = scene.run()
    assert torch.isfinite(found).all()
    check(scene, found, naive(scene))


def test_a_cache_has_the_size_that_was_announced(library):
    for dtype in EVERY_DTYPE:
        shape = CacheShape((CacheLayer(2, 20),) * 3, dtype)
        cache = native.allocate_cache(library, shape, 5)
        assert sum(part.nbytes for part in (*cache.keys, *cache.values)) == native.cache_bytes(library, shape, 5)
    full, small = (
        native.cache_bytes(library, CacheShape((CacheLayer(3, 64),), dtype), 1)
        for dtype in (torch.bfloat16, torch.int8)
    )
    assert math.isclose(small / full, (64 + 4) / 128)


@pytest.mark.parametrize("dtype", FLOATS_OF_8_BITS)
def test_floats_of_8_bits_are_written_as_torch_converts_them(library, dtype):
    """Of every size, what is too large becoming the largest."""
    cache = native.allocate_cache(library, CacheShape((CacheLayer(1, 48),), dtype), 1)
    generator = torch.Generator().manual_seed(random.SystemRandom().randrange(1 << 32))
    exponents = torch.randint(-24, 20, (32, 1, 48), generator=generator)
    rows = torch.randn((32, 1, 48), generator=generator) * 2.0**exponents
    rows[0, 0, :6] = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, -0.0, 3.0])
    rows[1, 0] = torch.arange(48) * 0.5**8  # halfway between others, too
    native.store_kv(library, cache, 0, rows, rows, torch.arange(32))
    largest = torch.finfo(dtype).max
    wanted = rows[:, 0].clamp(-largest, largest).to(dtype).float()
    keys = cache.keys[0].view(2, 48, 16).transpose(1, 2).reshape(32, 48)  # panels of 16 keys
    values = cache.values[0].view(3, 32, 16).transpose(0, 1).reshape(32, 48)  # panels of 16 dimensions
    for found in (keys, values):
        torch.testing.assert_close(found.contiguous().view(dtype).float(), wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATS_OF_8_BITS)
def test_every_float_of_8_bits_is_read(library, dtype):
    cache = native.allocate_cache(library, CacheShape((CacheLayer(1, 256),), dtype), 1)
    codes = torch.arange(256, dtype=torch.uint8)
    cache.values[0].view(16, 32, 16)[:, 0] = codes.view(16, 16)
    paging = make_paging([[0]], [0], [1], 32)
    found = native.attention(Pool(library, 1), torch.zeros((1, 1, 256)), cache, 0, paging, 1.0)
    torch.testing.assert_close(found[0], codes.view(dtype).float(), rtol=0, atol=0, equal_nan=True)
