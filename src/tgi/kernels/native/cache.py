"""The native layout of the KV cache, and attention over it outside a program.

The layout is csrc/cache.h's: blocks of 32 positions, keys transposed; here it is opaque bytes.
"""

from __future__ import annotations

from ctypes import byref

import torch

from tgi.kernels.host_memory import lazy_zeros, state_stores
from tgi.kernels.native import structs
from tgi.kernels.native.library import Library, Pool
from tgi.kernels.native.structs import CacheHeads
from tgi.kernels.program import CacheLayer, Sees
from tgi.kernels.types import CacheShape, KVCache, Paging

BLOCK_SIZE = 32
MAX_HEAD_DIM = 576
TYPES = {
    torch.float32: 0,
    torch.bfloat16: 1,
    torch.float16: 2,
    torch.int8: 3,
    torch.float8_e4m3fn: 100,
    torch.float8_e5m2: 101,
}
"""Element types a cache can have, numbered as in csrc/tgi.h."""


def cache_heads(layer: CacheLayer, dtype: torch.dtype) -> CacheHeads:
    return CacheHeads(TYPES[dtype], layer.kv_heads, layer.head_dim)


def block_bytes(library: Library, layer: CacheLayer, dtype: torch.dtype) -> tuple[int, int]:
    """Bytes of the keys and of the values of one block of one layer; none of values that are the keys."""
    heads = cache_heads(layer, dtype)
    return library.call.tgi_key_bytes(byref(heads)), 0 if layer.shared else library.call.tgi_value_bytes(byref(heads))


def cache_bytes(library: Library, shape: CacheShape, num_blocks: int) -> int:
    return num_blocks * sum(sum(block_bytes(library, layer, shape.dtype)) for layer in shape.layers)


def allocate_cache(library: Library, shape: CacheShape, num_blocks: int, num_states: int = 0) -> KVCache:
    """Zeros, taken when they are first written.

    One piece of memory for all layers, in huge pages where the system gives them: a step reads a little of
    every block it needs, and each small page would cost a walk of the page table.
    """
    sizes = [size for layer in shape.layers for size in block_bytes(library, layer, shape.dtype)]
    memory = lazy_zeros(num_blocks * sum(sizes))
    library.call.tgi_huge_pages(memory.data_ptr(), len(memory))
    pieces = memory.split([num_blocks * size for size in sizes])
    parts = [part.view(num_blocks, size) for part, size in zip(pieces, sizes, strict=True)]
    states = state_stores(shape.states, num_states, memory.device)
    return KVCache(shape, num_blocks, BLOCK_SIZE, parts[::2], parts[1::2], states)


def address(store: torch.Tensor) -> int | None:
    """Of the keys or values of a layer; None where there are none."""
    return store.data_ptr() if store.numel() else None


def store_kv(
    library: Library, cache: KVCache, layer: int, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor
) -> None:
    """Write keys and values [tokens, kv_heads, head_dim] to `slots` [tokens] of one layer."""
    heads = cache_heads(cache.shape.layers[layer], cache.shape.dtype)
    keys, values, slots = keys.float().contiguous(), values.float().contiguous(), slots.contiguous()
    library.call.tgi_store_kv(
        byref(heads),
        address(cache.keys[layer]),
        address(cache.values[layer]),
        slots.data_ptr(),
        len(slots),
        keys.data_ptr(),
        values.data_ptr(),
    )


def attention(
    pool: Pool,
    queries: torch.Tensor,
    cache: KVCache,
    layer: int,
    paging: Paging,
    scale: float,
    *,
    window: int | None = None,
    soft_cap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    chunk: int | None = None,
    sees: Sees = "before",
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """One attention outside a program: queries [tokens, heads, head_dim] -> [tokens, heads * head_dim].

    bias [heads, distances]: see `reference.whole.by_distance`.
    """
    tokens, heads, head_dim = queries.shape
    rows = queries.float().contiguous()
    slopes, sinks = (None if given is None else given.float().contiguous() for given in (alibi_slopes, sinks))
    out = torch.empty((tokens, heads * head_dim), dtype=torch.float32)
    op = structs.Attention(
        heads=heads,
        kv_heads=cache.shape.layers[layer].kv_heads,
        head_dim=head_dim,
        window=window or 0,
        scale=scale,
        soft_cap=soft_cap or 0.0,
        slopes=None if slopes is None else slopes.data_ptr(),
        sinks=None if sinks is None else sinks.data_ptr(),
        chunk=chunk or 0,
        sees=structs.SEES[sees],
        bias=None if bias is None else bias.data_ptr(),
        furthest=0 if bias is None else bias.shape[1] // 2,
    )
    step = structs.step_of(paging)
    pool.library.call.tgi_attention(
        pool.handle,
        TYPES[cache.shape.dtype],
        byref(op),
        address(cache.keys[layer]),
        address(cache.values[layer]),
        byref(step),
        rows.data_ptr(),
        out.data_ptr(),
    )
    return out.to(queries.dtype)
