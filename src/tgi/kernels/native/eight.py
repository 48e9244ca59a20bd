"""Weights in floats of 8 bits (e4m3), kept as they are in native panels: which matrices can be, and packing."""

from __future__ import annotations

from functools import cache

import torch

from tgi.kernels.coded import CodedWeight
from tgi.kernels.native.library import Arena, Pool
from tgi.kernels.native.linear import PackedLinear
from tgi.kernels.types import WeightReader
from tgi.kernels.weight import Weight

UNIT = 32
"""Columns that share a scale come in multiples of this, but where all of a row do: what an AMX tile multiplies."""
NOT_A_NUMBER = 127


def load_eight(pool: Pool, arena: Arena, weight: Weight, weights: WeightReader) -> PackedLinear | None:
    """The matrix as the checkpoint has it, without its bias; None where it is not in e4m3 or has other groups.

    Activations meet bfloat16, which holds every e4m3: with `--dtype float32` they would be rounded more than asked for.
    """
    if weights.dtype == torch.float32:
        return None
    layer, group = None, 0
    for first, piece in weights.pieces(weight, rounded=False):
        own = group_of(piece, weight.columns)
        if own is None or (layer is not None and own != group):
            return None
        assert isinstance(piece, CodedWeight)
        if layer is None:
            group = own
            layer = PackedLinear(pool, arena, "e4m3", weight.columns, weight.rows, group=group, bias=weight.bias)
        layer.pack_codes(piece.codes, piece.scales, first=first)
    return layer


def group_of(piece: CodedWeight | torch.Tensor, columns: int) -> int | None:
    """Columns that share a scale, 0: all of a row; None where panels cannot hold the rows."""
    if not isinstance(piece, CodedWeight) or piece.rotated or piece.order is not None or piece.codebook is None:
        return None
    if piece.zeros is not None or piece.mins is not None or not _is_e4m3(piece.codebook):
        return None
    if bool(((piece.codes & NOT_A_NUMBER) == NOT_A_NUMBER).any()):
        return None
    if piece.group >= columns:
        return 0
    return None if piece.group % UNIT else piece.group


def _is_e4m3(book: torch.Tensor) -> bool:
    """Whether codes are these floats; two are not numbers and equal nothing."""
    return len(book) == 256 and torch.equal(book.nan_to_num(), _values())


@cache
def _values() -> torch.Tensor:
    return torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().nan_to_num()
