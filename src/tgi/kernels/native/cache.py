"""The native layout of the KV cache, and attention over it, for callers of the `Ops` seam.

The layout is csrc/cache.h's: blocks of 32 positions, keys transposed; here it is opaque bytes. Whole steps
do not pass through this module but through `native.program`.
"""

from __future__ import annotations

from ctypes import Structure, byref, c_int32

import torch

from tgi.kernels.native.library import Library, Pool
from tgi.kernels.ops import CacheShape, KVCache, Paging

BLOCK_SIZE = 32
MAX_HEAD_DIM = 256
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int8: 3}
"""Element types a cache can have, numbered as in csrc/tgi.h."""


class AttentionShape(Structure):
    """`tgi_attention_shape`."""

    _fields_ = tuple((name, c_int32) for name in ("type", "heads", "kv_heads", "head_dim"))


def attention_shape(shape: CacheShape, heads: int) -> AttentionShape:
    return AttentionShape(TYPES[shape.dtype], heads, shape.num_kv_heads, shape.head_dim)


def block_bytes(library: Library, shape: CacheShape) -> tuple[int, int]:
    """Bytes of the keys and of the values of one block of one layer."""
    native = attention_shape(shape, shape.num_kv_heads)
    return library.call.tgi_key_bytes(byref(native)), library.call.tgi_value_bytes(byref(native))


def cache_bytes(library: Library, shape: CacheShape, num_blocks: int) -> int:
    return shape.num_layers * num_blocks * sum(block_bytes(library, shape))


def allocate_cache(library: Library, shape: CacheShape, num_blocks: int, device: torch.device) -> KVCache:
    """Zeros, written here so that memory is taken at the start and not while requests run.

    One piece of memory for all layers, in huge pages where the system gives them: a step reads a little of
    every block it needs, and each small page would cost a walk of the page table.
    """
    sizes = block_bytes(library, shape)
    memory = torch.empty(num_blocks * shape.num_layers * sum(sizes), dtype=torch.uint8)
    library.call.tgi_huge_pages(memory.data_ptr(), len(memory))
    memory.zero_()
    parts = iter(memory.split([num_blocks * size for size in sizes] * shape.num_layers))
    pairs = [(next(parts).view(num_blocks, -1), next(parts).view(num_blocks, -1)) for _ in range(shape.num_layers)]
    return KVCache(shape, num_blocks, BLOCK_SIZE, [keys for keys, _ in pairs], [values for _, values in pairs])


def store_kv(
    library: Library, cache: KVCache, layer: int, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor
) -> None:
    """See `ops.StoreKV`."""
    shape = attention_shape(cache.shape, cache.shape.num_kv_heads)
    keys, values, slots = keys.float().contiguous(), values.float().contiguous(), slots.contiguous()
    library.call.tgi_store_kv(
        byref(shape),
        cache.keys[layer].data_ptr(),
        cache.values[layer].data_ptr(),
        slots.data_ptr(),
        len(slots),
        keys.data_ptr(),
        values.data_ptr(),
    )


def plan_attention(paging: Paging, window: int | None) -> tuple[Paging, int]:
    """The native side plans in microseconds, in every call."""
    return paging, window or 0


def attention(
    pool: Pool,
    queries: torch.Tensor,
    cache: KVCache,
    layer: int,
    plan: tuple[Paging, int],
    scale: float,
    soft_cap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
) -> torch.Tensor:
    """See `ops.Attention`."""
    from tgi.kernels.native.program import step_of  # which imports this module

    paging, window = plan
    rows = queries.float().contiguous()
    slopes = None if alibi_slopes is None else alibi_slopes.float().contiguous()
    out = torch.empty((len(rows), rows.shape[1] * rows.shape[2]), dtype=torch.float32)
    shape, step = attention_shape(cache.shape, rows.shape[1]), step_of(paging)
    pool.library.call.tgi_attention(
        pool.handle,
        byref(shape),
        cache.keys[layer].data_ptr(),
        cache.values[layer].data_ptr(),
        byref(step),
        rows.data_ptr(),
        scale,
        soft_cap or 0.0,
        window,
        None if slopes is None else slopes.data_ptr(),
        out.data_ptr(),
    )
    return out.to(queries.dtype)
