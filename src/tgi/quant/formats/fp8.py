"""fp8: weights of 8-bit floats with one scale, one a row, or one for each block of 128 x 128.

Tensors of a module: weight (e4m3 or e5m2), and weight_scale or weight_scale_inv, which both multiply. The writers are
AutoFP8, fbgemm, DeepSeek and Quark. Scales of activations are not needed: activations are not rounded to 8 bits here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.weight import WeightSource
from tgi.quant.formats.modules import ByModule, Part, check_dims, read

TYPES = (torch.float8_e4m3fn, torch.float8_e5m2)
SCALES = ("weight_scale", "weight_scale_inv")


class Fp8(ByModule):
    """See `StoredFormat`."""

    name = "fp8"
    ignored: tuple[str, ...] = (
        r".*\.(input|activation|output|act)_scale",
        r".*\.input_scale_ub",
        r".*\.[kvq]_scale",
    )

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._block = settings.get("weight_block_size")
        scheme = settings.get("global_quant_config")  # Quark's, which has other types too
        weight = scheme.get("weight") if isinstance(scheme, dict) else None
        if isinstance(weight, dict) and weight.get("dtype") not in (None, "fp8_e4m3", "fp8_e5m2"):
            raise ModelError(f"Quark with weights of {weight.get('dtype')!r} is not supported: fp8_e4m3 is")

    def stores(self, source: WeightSource, module: str) -> bool:
        return source.has(f"{module}.weight") and source.dtype(f"{module}.weight") in TYPES

    def read(self, source: WeightSource, part: Part) -> CodedWeight:
        return read_rows(source, part, self._block)


def read_rows(source: WeightSource, part: Part, block: Any = None) -> CodedWeight:
    """Rows of a module of fp8. block: rows and columns of a block, as the settings say it."""
    name = f"{part.module}.weight"
    check_dims(source, name, (part.rows, part.columns), "fp8")
    dtype = source.dtype(name)
    codes = read(source, name, dtype, (part.span,)).view(torch.uint8)
    scale = next((f"{part.module}.{end}" for end in SCALES if source.has(f"{part.module}.{end}")), None)
    if scale is None:
        raise ModelError(
            f"Tensor {part.module}.weight_scale is missing from the checkpoint: fp8 cannot be read without"
        )
    scales, group = _scales(source, scale, part, block)
    book = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    return CodedWeight(codes, scales, group, codebook=book)


def _scales(source: WeightSource, name: str, part: Part, block: Any) -> tuple[torch.Tensor, int]:
    """[rows of the part, groups], and the columns of a group."""
    shape, rows = source.shape(name), part.end - part.begin
    if math.prod(shape) == 1:
        return read(source, name, torch.float32).view(1, 1).expand(rows, 1).contiguous(), part.columns
    if shape in ((part.rows,), (part.rows, 1)):
        return read(source, name, torch.float32, (part.span,)).view(rows, 1), part.columns
    if len(shape) != 2:
        raise ModelError(
            f"Tensor {name} has shape {list(shape)}, which is no scale of a {part.rows} x {part.columns} matrix"
        )
    tall, wide = block_size(name, shape, part, block)
    whole = read(source, name, torch.float32)
    return whole[torch.arange(part.begin, part.end) // tall].contiguous(), wide


def block_size(name: str, shape: tuple[int, ...], part: Part, block: Any) -> tuple[int, int]:
    """Rows and columns that share a scale. Raises ModelError."""
    if isinstance(block, list | tuple) and len(block) == 2 and all(type(size) is int and size > 0 for size in block):
        tall, wide = block
    elif block is None:
        tall, wide = 128, 128
    else:
        raise ModelError(f"`weight_block_size` {block!r} of the checkpoint's settings is no pair of sizes")
    if shape != (-(-part.rows // tall), -(-part.columns // wide)):
        raise ModelError(
            f"Tensor {name} has shape {list(shape)}, which does not fit blocks of {tall} x {wide} of a "
            f"{part.rows} x {part.columns} matrix"
        )
    return tall, wide
