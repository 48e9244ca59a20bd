"""torchao, as its tensors lie in safetensors files: `module`._weight_qdata, ._weight_scale and ._weight_zero_point.

Which type of torchao's it is, shapes and dtypes tell: float8 (Float8Tensor), or int8 (Int8Tensor, and
IntxUnpackedToInt8Tensor with its zero points), a scale for the tensor, each row, group or block; or two 4-bit codes in
a byte, the first in its lower half, with scales and offsets [groups, rows] (Int4Tensor). Types in the layout of one
kernel are refused, and so are pickled checkpoints.
"""

from __future__ import annotations

import torch

from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.weight import WeightSource
from tgi.quant.formats.bits import nibbles
from tgi.quant.formats.modules import ByModule, Part, check_dims, read, whole_tensors

CODES, SCALE, ZERO, PRE_SCALE = "_weight_qdata", "_weight_scale", "_weight_zero_point", "_weight_act_pre_scale"
FLOATS = (torch.float8_e4m3fn, torch.float8_e5m2)
INSTEAD = "serve the original checkpoint with --quantize, or one saved with a plain packing format"


class TorchAo(ByModule):
    """See `StoredFormat`."""

    name = "torchao"

    def stores(self, source: WeightSource, module: str) -> bool:
        return whole_tensors(source, module, (CODES, SCALE), self.name)

    def read(self, source: WeightSource, part: Part) -> CodedWeight:
        name = f"{part.module}.{CODES}"
        dtype, shape = source.dtype(name), source.shape(name)
        if source.has(f"{part.module}.{PRE_SCALE}"):
            raise ModelError(
                f"{part.module} has scales of its inputs ({PRE_SCALE}), which are not supported: {INSTEAD}"
            )
        if dtype in (torch.int8, torch.uint8) and shape == (part.rows, part.columns // 2) and part.columns % 2 == 0:
            return _four_bits(source, part, dtype)
        if dtype not in (torch.int8, *FLOATS) or len(shape) != 2:
            raise ModelError(
                f"Tensor {name} has dtype {str(dtype).removeprefix('torch.')} and shape {list(shape)}, which is no "
                f"plain layout of torchao's: {INSTEAD}"
            )
        check_dims(source, name, (part.rows, part.columns), self.name)
        codes = read(source, name, dtype, (part.span,))
        scales, group = _by_row(source, f"{part.module}.{SCALE}", part)
        if dtype in FLOATS:
            book = torch.arange(256, dtype=torch.uint8).view(dtype).float()
            return CodedWeight(codes.view(torch.uint8), scales, group, codebook=book)
        zeros = torch.full_like(scales, 128.0)
        if source.has(f"{part.module}.{ZERO}"):
            points, others = _by_row(source, f"{part.module}.{ZERO}", part)
            if others != group:
                raise ModelError(f"Tensor {part.module}.{ZERO} has groups of {others} columns, its scales of {group}")
            zeros = zeros + points
        return CodedWeight(codes.view(torch.uint8) ^ 128, scales, group, zeros)


def _four_bits(source: WeightSource, part: Part, dtype: torch.dtype) -> CodedWeight:
    """Signed codes times their scale, plus an offset."""
    groups = check_dims(source, f"{part.module}.{SCALE}", (None, part.rows), "torchao int4")[0]
    check_dims(source, f"{part.module}.{ZERO}", (groups, part.rows), "torchao int4")
    if groups < 1 or part.columns % groups:
        raise ModelError(
            f"Tensor {part.module}.{SCALE} has {groups} groups for {part.columns} columns, no whole number each"
        )
    packed = read(source, f"{part.module}.{CODES}", dtype, (part.span,)).view(torch.uint8)
    every = slice(0, groups)
    scales, offsets = (
        read(source, f"{part.module}.{end}", torch.float32, (every, part.span)).T.contiguous() for end in (SCALE, ZERO)
    )
    return CodedWeight(nibbles(packed) ^ 8, scales, part.columns // groups, torch.full_like(scales, 8.0), mins=offsets)


def _by_row(source: WeightSource, name: str, part: Part) -> tuple[torch.Tensor, int]:
    """Numbers of blocks as [rows of the part, groups], and the columns of a group."""
    shape = source.shape(name)
    tall, wide = (*shape, 1, 1)[:2] if len(shape) < 3 else (0, 0)
    if not tall or not wide or part.rows % tall or part.columns % wide:
        raise ModelError(
            f"Tensor {name} has shape {list(shape)}, which cuts a {part.rows} x {part.columns} matrix into no blocks"
        )
    whole = read(source, name, source.dtype(name)).float().view(tall, wide)  # zero points are integers
    rows = torch.arange(part.begin, part.end) // (part.rows // tall)
    return whole[rows].contiguous(), part.columns // wide
