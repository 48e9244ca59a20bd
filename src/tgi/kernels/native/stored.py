"""Codes of a checkpoint in native panels, as they are: which panels can hold them, and packing.

The scale of a group keeps 24 bits, so weights differ from the checkpoint's by one part in 65,000 at most, which is
less than bfloat16 would make of them. Activations are left unrounded: nothing was rotated that would let them be
rounded well.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from tgi.kernels.coded import CodedWeight
from tgi.kernels.formats import CODE_FORMATS, CodeFormat
from tgi.kernels.native.library import Arena, Pool
from tgi.kernels.native.linear import PackedLinear
from tgi.kernels.types import WeightReader
from tgi.kernels.weight import Weight

SCALE_BITS = -256
"""Mask of the bits of a float32 scale that a panel keeps."""
PANELS = ("int4", "int6", "int8")
"""Of unsigned codes with a scale and a zero point for each group, the smallest first."""


def load_stored(pool: Pool, arena: Arena, weight: Weight, weights: WeightReader) -> PackedLinear | None:
    """The matrix with the codes that the checkpoint has, without its bias; None where panels cannot hold all of it."""
    layer, exact = None, weights.dtype == torch.float32
    for first, piece in weights.pieces(weight, rounded=False):
        panel = panel_of(piece, weight.columns, exact) if isinstance(piece, CodedWeight) else None
        if panel is None or not isinstance(piece, CodedWeight) or piece.zeros is None:
            return None
        if layer is None:
            layer = _layer(pool, arena, weight, panel)
        if CODE_FORMATS[layer.format].bits < panel.bits or layer.group != panel.group:
            return None
        layer.pack_codes(piece.codes, piece.scales, piece.zeros, first)
    return layer


def panel_of(piece: CodedWeight, columns: int, exact: bool) -> CodeFormat | None:
    """The smallest panel that holds some codes, with their group; None if there is none.

    exact: scales must be what a panel keeps of them.
    """
    special = (piece.codebook, piece.mins, piece.order)
    if any(part is not None for part in special) or piece.rotated or piece.zeros is None:
        return None
    whole_row = piece.group >= columns
    if piece.group % 16 and not whole_row:
        return None
    zeros = piece.zeros.float()
    if bool(((zeros != zeros.round()) | (zeros < 0) | (zeros > 255)).any()):
        return None
    bits = piece.scales.float().contiguous().view(torch.int32)
    if exact and bool((bits & ~SCALE_BITS).any()):
        return None
    most = int(piece.codes.max())
    panel = next(CODE_FORMATS[name] for name in PANELS if most >> CODE_FORMATS[name].bits == 0)
    return replace(panel, group=0 if whole_row else piece.group)


def _layer(pool: Pool, arena: Arena, weight: Weight, panel: CodeFormat) -> PackedLinear:
    return PackedLinear(
        pool,
        arena,
        panel.name,
        weight.columns,
        weight.rows,
        group=panel.group,
        zero_points=True,
        bias=weight.bias,
        activations="float32",
    )
