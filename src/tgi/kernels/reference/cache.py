"""Keys and values as the reference backend's cache keeps them: floats of any width, or int8 with a scale for each row.

Stores are [blocks, block_size, kv_heads, width]. In int8 the last four of a row are the bytes of its float32 scale.
"""

from __future__ import annotations

import torch

SCALE_BYTES = 4


def width(head_dim: int, dtype: torch.dtype) -> int:
    """Elements of a row."""
    return head_dim + SCALE_BYTES if dtype == torch.int8 else head_dim


def store_kv(store: torch.Tensor, rows: torch.Tensor, slots: torch.Tensor) -> None:
    """Write rows [tokens, kv_heads, head_dim] to slots [tokens] of a store. In 8-bit floats, what is larger than their
    largest becomes that."""
    if store.dtype == torch.int8:
        rows = _to_int8(rows.float())
    elif store.dtype.itemsize == 1:
        largest = torch.finfo(store.dtype).max
        rows = rows.float().clamp(-largest, largest)
    _movable(store).view(-1, *store.shape[2:]).index_copy_(0, slots, _movable(rows.to(store.dtype)))


def gather(store: torch.Tensor, blocks: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[sequences, blocks] -> [sequences, kv_heads, blocks * block_size, head_dim] of a float dtype"""
    rows = _movable(store).index_select(0, blocks.flatten()).view(store.dtype)
    if store.dtype == torch.int8:
        rows = rows[..., :-SCALE_BYTES].float() * rows[..., -SCALE_BYTES:].contiguous().view(torch.float32)
    return rows.view(blocks.shape[0], -1, *rows.shape[2:]).to(dtype).transpose(1, 2)


def _to_int8(rows: torch.Tensor) -> torch.Tensor:
    peak = rows.abs().amax(-1, keepdim=True)
    codes = (rows * torch.where(peak > 0, 127.0 / peak, 0.0)).round().to(torch.int8)
    return torch.cat((codes, (peak / 127.0).view(torch.int8)), -1)


def _movable(x: torch.Tensor) -> torch.Tensor:
    """The same memory in a dtype whose elements torch can select and copy."""
    return x.view(torch.uint8) if x.dtype.itemsize == 1 else x
