"""Reference attention to all keys of a sequence, and the numbers of a bias by distance.

For encoders, and for decoders that attend to what one left. Sequences are computed one by one, in pieces of rows, so
that no row depends on another sequence and scratch memory stays bounded.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tgi.kernels.program import RelativeBias
from tgi.kernels.reference.attention import MAX_PIECE, MIN_PIECE, PIECE_SCORES, More, explicit
from tgi.kernels.reference.cache import gather
from tgi.kernels.types import EncoderKeys, KVCache, Paging


def whole_attention(
    queries: torch.Tensor,
    cache: KVCache,
    layer: int,
    paging: Paging,
    keys_of: EncoderKeys,
    scale: float,
    soft_cap: float | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """queries [tokens, heads, head_dim] over one cache layer -> [tokens, heads * head_dim].

    Each row sees all keys that `keys_of` names for its sequence. bias: of `by_distance`.
    """
    tokens, heads, head_dim = queries.shape
    kv_heads = cache.shape.layers[layer].kv_heads
    grouped = queries.view(tokens, kv_heads, heads // kv_heads, head_dim)
    out = torch.empty_like(grouped, memory_format=torch.contiguous_format)
    row = 0
    for sequence, (count, context) in enumerate(zip(paging.query_lens, keys_of.lens, strict=True)):
        blocks = keys_of.block_tables[sequence : sequence + 1, : -(-context // cache.block_size)]
        k, v = (
            gather(store[layer], blocks, queries.dtype)[0, :, None, :context] for store in (cache.keys, cache.values)
        )
        size = min(MAX_PIECE, max(MIN_PIECE, PIECE_SCORES // context))
        for begin in range(row, row + count, size):
            rows = slice(begin, min(begin + size, row + count))
            q = grouped[rows].permute(1, 2, 0, 3)  # [kv_heads, group, rows, head_dim]
            offsets = torch.arange(context, device=q.device) - paging.positions[rows, None]
            out[rows] = _attend(q, k, v, offsets, scale, soft_cap, bias).permute(2, 0, 1, 3)
        row += count
    return out.view(tokens, heads * head_dim)


def _attend(
    q: torch.Tensor,  # [kv_heads, group, rows, head_dim]
    k: torch.Tensor,  # [kv_heads, 1, keys, head_dim]
    v: torch.Tensor,
    offsets: torch.Tensor,  # [rows, keys] distance of the key
    scale: float,
    soft_cap: float | None,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    if soft_cap is None and bias is None:
        k, v = (x.expand(-1, q.shape[1], -1, -1) for x in (k, v))
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    mask = torch.ones_like(offsets, dtype=torch.bool)
    added = More(None, None, None, None if bias is None else bias.view(len(q), q.shape[1], -1)).added(offsets)
    return explicit(q, k, v, mask, added, scale, soft_cap)


def by_distance(bias: RelativeBias, table: torch.Tensor) -> torch.Tensor:
    """[heads, 2 * furthest + 1] float32: what is added at each distance from -furthest to furthest, beyond which it
    stays. table [buckets, heads]; see `program.RelativeBias`.
    """
    buckets, distances = len(table), torch.arange(-bias.furthest, bias.furthest + 1)
    if bias.both_ways:
        buckets //= 2
        first, back = (distances > 0) * buckets, distances.abs()
    else:
        first, back = torch.zeros_like(distances), (-distances).clamp(min=0)
    exact = buckets // 2
    logarithms = torch.log(back.clamp(min=1).float() / exact) / math.log(bias.furthest / exact)
    grown = (exact + (logarithms * (buckets - exact)).long()).clamp(max=buckets - 1)
    return table[first + torch.where(back < exact, back, grown)].float().t().contiguous()
