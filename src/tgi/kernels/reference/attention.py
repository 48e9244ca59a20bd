"""Reference attention over the paged cache, in torch.

Sequences with one row (decode) are computed together: their blocks are gathered into a padded batch
and attended with a mask. Sequences with several rows (prefill chunks) are computed one by one, in
pieces of rows, each over exactly the keys it can see. Both bounds below keep scratch memory constant
however long the contexts are.

A row of the batch never depends on another sequence: prefill gathers exactly its own keys, and decode
recomputes without the padding when a non-finite number shows up, since 0 * NaN is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tgi.kernels.reference.cache import gather
from tgi.kernels.types import KVCache, Paging

DECODE_KEYS = 65_536
"""Keys gathered at once for a batch of decode rows, padding included."""
PIECE_SCORES = 1 << 21
"""Rows x keys of one piece of a prefill chunk: bounds the mask, and with heads the explicit scores."""
MIN_PIECE = 16
MAX_PIECE = 512
"""Rows of a piece: large enough for the matrix product, small enough to skip keys above the diagonal."""


@dataclass(frozen=True, slots=True)
class Span:
    """Which of the keys up to its own a row sees: the last `window`, those from a multiple of `chunk` on, or all."""

    window: int | None = None
    chunk: int | None = None

    def first(self, position: int) -> int:
        """The first key that the row at `position` sees."""
        if self.chunk:
            return position // self.chunk * self.chunk
        return max(position - self.window + 1, 0) if self.window else 0

    def firsts(self, positions: torch.Tensor) -> torch.Tensor:
        """The same, which may be negative."""
        if self.chunk:
            return positions // self.chunk * self.chunk
        return positions - self.window + 1 if self.window else torch.zeros_like(positions)


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Single-row sequences whose keys are gathered together.

    Gathered block j of sequence s covers positions (first[s] + j) * block_size ..., where first is the
    first block inside the window.
    """

    rows: torch.Tensor | slice  # [sequences] int64, rows of the batch; a slice, hence a view, if contiguous
    blocks: torch.Tensor  # [sequences, blocks] int64, cache blocks; repeats past the context
    offsets: torch.Tensor  # [sequences, keys] int64, key position - row position: <= 0 for the past
    visible: torch.Tensor  # [sequences, keys] bool


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """A sequence with several rows, and the pieces its rows are computed in."""

    start_row: int
    start: int  # position of its first row
    first_block: int  # first block any of its rows sees
    blocks: torch.Tensor  # [blocks] int64, from first_block on
    pieces: list[tuple[int, int]]  # rows [begin, end) relative to start_row


@dataclass(frozen=True, slots=True)
class More:
    """What scores get beside their scale; see `program.Attention`."""

    soft_cap: float | None
    slopes: torch.Tensor | None  # [kv_heads, group]
    sinks: torch.Tensor | None  # the same
    bias: torch.Tensor | None = None  # [kv_heads, group, distances from -furthest to furthest]

    @property
    def plain(self) -> bool:
        return self.soft_cap is None and self.slopes is None and self.sinks is None and self.bias is None

    def added(self, offsets: torch.Tensor, kv_heads: slice = slice(None)) -> torch.Tensor | None:
        """For the distance of the keys: offsets [rows, keys] -> [kv_heads, group, rows, keys]"""
        if self.slopes is not None:
            return self.slopes[kv_heads, :, None, None] * offsets
        if self.bias is None:
            return None
        furthest = self.bias.shape[2] // 2
        return self.bias[kv_heads][:, :, offsets.clamp(-furthest, furthest) + furthest]


@dataclass(frozen=True, slots=True)
class Plan:
    span: Span
    decode: list[DecodeGroup]
    prefill: list[PrefillChunk]


def plan_attention(block_size: int, paging: Paging, span: Span) -> Plan:
    """Group the sequences of a step; runs once a step for all layers that share `span`."""
    singles: list[tuple[int, int, int]] = []  # (context, sequence, row)
    chunks = []
    row = 0
    for sequence, (count, context) in enumerate(zip(paging.query_lens, paging.context_lens, strict=True)):
        if count == 1:
            singles.append((context, sequence, row))
        elif count > 1:
            chunks.append(_plan_chunk(block_size, paging, span, sequence, row))
        row += count
    groups = [_plan_group(block_size, paging, span, group) for group in _split(singles, span)]
    return Plan(span, groups, chunks)


def _split(singles: list[tuple[int, int, int]], span: Span) -> list[list[tuple[int, int, int]]]:
    """Groups of similar length, so that padding at most doubles the keys once they are many."""
    groups: list[list[tuple[int, int, int]]] = []
    longest = 0
    for single in sorted(singles, reverse=True):
        keys = single[0] - span.first(single[0] - 1)
        full = groups and longest * (len(groups[-1]) + 1) > DECODE_KEYS
        wasteful = longest >= 512 and 2 * keys < longest
        if not groups or full or wasteful:
            groups.append([])
            longest = keys
        groups[-1].append(single)
    return groups


def _plan_group(block_size: int, paging: Paging, span: Span, group: list[tuple[int, int, int]]) -> DecodeGroup:
    device = paging.block_tables.device
    group = sorted(group, key=lambda single: single[2])
    columns = torch.tensor(group, dtype=torch.int64, device=device)  # [sequences, 3]
    contexts, sequences = columns[:, :1], columns[:, 1]
    begin, end = group[0][2], group[-1][2] + 1
    rows = slice(begin, end) if end - begin == len(group) else columns[:, 2]
    first_seen = span.firsts(contexts - 1).clamp(min=0)
    first = first_seen // block_size
    skipped = [span.first(context - 1) // block_size for context, _, _ in group]
    count = max(-(-context // block_size) - skip for (context, _, _), skip in zip(group, skipped, strict=True))
    last = (contexts - 1) // block_size
    blocks = torch.minimum(first + torch.arange(count, device=device), last)
    blocks = paging.block_tables[sequences].gather(1, blocks)
    positions = first * block_size + torch.arange(count * block_size, device=device)
    offsets = positions - (contexts - 1)
    visible = (offsets <= 0) & (positions >= first_seen)
    return DecodeGroup(rows, blocks, offsets, visible)


def _plan_chunk(block_size: int, paging: Paging, span: Span, sequence: int, row: int) -> PrefillChunk:
    count, context = paging.query_lens[sequence], paging.context_lens[sequence]
    start = context - count
    first_block = span.first(start) // block_size
    blocks = paging.block_tables[sequence, first_block : -(-context // block_size)]
    size = min(MAX_PIECE, max(MIN_PIECE, PIECE_SCORES // (context - first_block * block_size)))
    pieces = [(begin, min(begin + size, count)) for begin in range(0, count, size)]
    return PrefillChunk(row, start, first_block, blocks, pieces)


def attention(
    queries: torch.Tensor,
    cache: KVCache,
    layer: int,
    plan: Plan,
    scale: float,
    soft_cap: float | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """queries [tokens, heads, head_dim] over one cache layer -> [tokens, heads * head_dim]; see `program.Attention`.

    A row's result depends on its own sequence only, whatever blocks of others contain.
    """
    tokens, heads, head_dim = queries.shape
    kv_heads = cache.shape.layers[layer].kv_heads
    grouped = queries.view(tokens, kv_heads, heads // kv_heads, head_dim)
    slopes = None if alibi_slopes is None else alibi_slopes.float().view(kv_heads, heads // kv_heads)
    sinks = None if sinks is None else sinks.float().view(kv_heads, heads // kv_heads)
    bias = None if bias is None else bias.view(kv_heads, heads // kv_heads, -1)
    more = More(soft_cap, slopes, sinks, bias)
    keys, values = cache.keys[layer], cache.values[layer]
    out = torch.empty_like(grouped, memory_format=torch.contiguous_format)
    for group in plan.decode:
        out[group.rows] = _decode(grouped[group.rows], keys, values, group, scale, more)
    for chunk in plan.prefill:
        _prefill(grouped, keys, values, chunk, plan.span, scale, more, out)
    return out.view(tokens, heads * head_dim)


def _decode(
    queries: torch.Tensor,  # [sequences, kv_heads, group, head_dim]
    keys: torch.Tensor,
    values: torch.Tensor,
    group: DecodeGroup,
    scale: float,
    more: More,
) -> torch.Tensor:
    k = gather(keys, group.blocks, queries.dtype)  # [sequences, kv_heads, keys, head_dim]
    v = gather(values, group.blocks, queries.dtype)
    mask = group.visible[:, None, None, :]

    def run() -> torch.Tensor:
        if more.plain:
            # The heads that share keys stand where SDPA expects query rows: nothing is repeated.
            full = mask.expand(-1, 1, queries.shape[2], -1)
            return F.scaled_dot_product_attention(queries, k, v, attn_mask=full, scale=scale)
        added = more.added(group.offsets)
        bias = None if added is None else added.permute(2, 0, 1, 3)
        sinks = None if more.sinks is None else more.sinks[None, :, :, None]
        return explicit(queries, k, v, mask, bias, scale, more.soft_cap, sinks)

    if queries.device.type == "cpu":
        out = run()
        if torch.isfinite(out).all():
            return out
    hidden = ~group.visible[:, None, :, None]  # without asking the device: always, where asking is dear
    k, v = k.masked_fill(hidden, 0), v.masked_fill(hidden, 0)
    return run()


def _prefill(
    queries: torch.Tensor,  # [tokens, kv_heads, group, head_dim], of the whole batch
    keys: torch.Tensor,
    values: torch.Tensor,
    chunk: PrefillChunk,
    span: Span,
    scale: float,
    more: More,
    out: torch.Tensor,
) -> None:
    k = gather(keys, chunk.blocks[None], queries.dtype)[0]  # [kv_heads, keys, head_dim]
    v = gather(values, chunk.blocks[None], queries.dtype)[0]
    base = chunk.first_block * keys.shape[1]  # position of k's first key
    for begin, end in chunk.pieces:
        rows = slice(chunk.start_row + begin, chunk.start_row + end)
        low, high = chunk.start + begin, chunk.start + end  # positions of the rows: [low, high)
        bottom = span.first(low)
        q = queries[rows].permute(1, 2, 0, 3)  # [kv_heads, group, rows, head_dim]
        piece_k = k[:, None, bottom - base : high - base].expand(-1, q.shape[1], -1, -1)
        piece_v = v[:, None, bottom - base : high - base].expand(-1, q.shape[1], -1, -1)
        if more.plain and low == bottom == span.first(high - 1):
            result = F.scaled_dot_product_attention(q, piece_k, piece_v, is_causal=True, scale=scale)
        else:
            seen = torch.arange(bottom, high, device=q.device)
            seers = torch.arange(low, high, device=q.device)[:, None]
            mask = (seen <= seers) & (seen >= span.firsts(seers))
            if more.plain:
                result = F.scaled_dot_product_attention(q, piece_k, piece_v, attn_mask=mask, scale=scale)
            else:
                # One key head at a time: scores of all heads at once would be the largest tensor of the step.
                parts = []
                for h in range(q.shape[0]):
                    added = more.added(seen - seers, slice(h, h + 1))
                    bias = None if added is None else added[0]
                    sinks = None if more.sinks is None else more.sinks[h, :, None, None]
                    parts.append(explicit(q[h], piece_k[h], piece_v[h], mask, bias, scale, more.soft_cap, sinks))
                result = torch.stack(parts)
        out[rows] = result.permute(2, 0, 1, 3)


def explicit(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor,
    bias: torch.Tensor | None,
    scale: float,
    soft_cap: float | None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention with the scores written out in float32, for what SDPA cannot do."""
    scores = q.float() @ k.float().transpose(-1, -2) * scale
    if soft_cap is not None:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    if bias is not None:
        scores = scores + bias
    scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is not None:
        scores = torch.cat((scores, sinks.expand(*scores.shape[:-1], 1)), dim=-1)
    weights = scores.softmax(-1)[..., : k.shape[-2]]
    return (weights @ v.float()).to(q.dtype)
