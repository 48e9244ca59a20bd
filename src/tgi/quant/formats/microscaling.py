"""4-bit floats (e2m1) with a scale for each few columns: MXFP4 and NVFP4.

MXFP4: groups of 32, scales that are powers of two, kept as their exponent plus 127 (OCP Microscaling Formats 1.0).
NVFP4: groups of 16, scales in e4m3, divided by one for the whole matrix. Two codes to a byte, the first in the lower
half.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tgi.kernels.coded import CodedWeight
from tgi.kernels.weight import Weight, WeightSource
from tgi.quant.formats.base import WHOLE, Buffer, Shard, shares
from tgi.quant.formats.bits import nibbles
from tgi.quant.formats.modules import ByModule, Part, check_dims, cut, read, read_number

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
MX_GROUP, NV_GROUP = 32, 16


class Mxfp4(ByModule):
    """See `StoredFormat`: modules of `blocks` [rows, groups, 16] and `scales` [rows, groups], both bytes.

    gpt-oss has those of all experts of a layer in one, [experts, rows, groups, 16], whatever way its floats are turned.
    """

    name = "mxfp4"

    def stores(self, source: WeightSource, module: str) -> bool:
        return source.has(f"{module}_blocks") or source.has(f"{module}_scales")

    def pieces(
        self, weight: Weight, source: WeightSource, buffer: Buffer, shard: Shard = WHOLE
    ) -> Iterator[tuple[int, torch.Tensor | CodedWeight]]:
        within, blocks, scales = weight.within, f"{weight.names[0]}_blocks", f"{weight.names[0]}_scales"
        if within is None or not within.stacked or not source.has(blocks) or len(source.shape(blocks)) != 4:
            yield from super().pieces(weight, source, buffer, shard)
            return
        groups = weight.columns // MX_GROUP
        check_dims(source, blocks, (within.size, weight.rows, groups, MX_GROUP // 2), "MXFP4")
        check_dims(source, scales, (within.size, weight.rows, groups), "MXFP4")
        rows, columns = shares(weight, shard)
        for stored in rows:
            index = (slice(within.first, within.first + 1), stored.stored_slice)
            packed = read(source, blocks, torch.uint8, index)[0].flatten(1)
            yield stored.first, cut(mxfp4(packed, read(source, scales, torch.uint8, index)[0]), columns)

    def read(self, source: WeightSource, part: Part) -> CodedWeight:
        groups = part.columns // MX_GROUP
        blocks, scales = f"{part.module}_blocks", f"{part.module}_scales"
        check_dims(source, blocks, (part.rows, groups, MX_GROUP // 2), "MXFP4")
        check_dims(source, scales, (part.rows, groups), "MXFP4")
        packed = read(source, blocks, torch.uint8, (part.span,)).flatten(1)
        return mxfp4(packed, read(source, scales, torch.uint8, (part.span,)))


def mxfp4(packed: torch.Tensor, exponents: torch.Tensor) -> CodedWeight:
    """packed [rows, columns / 2] and exponents [rows, groups], both uint8"""
    return CodedWeight(nibbles(packed), powers(exponents), MX_GROUP, codebook=torch.tensor(E2M1))


def powers(exponents: torch.Tensor) -> torch.Tensor:
    """2 ** (exponents - 127) in float32; exponents uint8"""
    bits = exponents.int()
    return torch.where(bits == 0, 1 << 22, bits << 23).view(torch.float32)


def read_compressed(source: WeightSource, part: Part) -> CodedWeight:
    """Rows of a module of compressed-tensors: weight_packed, weight_scale and, of NVFP4, weight_global_scale."""
    name = part.module
    check_dims(source, f"{name}.weight_packed", (part.rows, part.columns // 2), "compressed-tensors")
    codes = nibbles(read(source, f"{name}.weight_packed", torch.uint8, (part.span,)))
    group = NV_GROUP if source.has(f"{name}.weight_global_scale") else MX_GROUP
    check_dims(source, f"{name}.weight_scale", (part.rows, part.columns // group), "compressed-tensors")
    if group == MX_GROUP:
        scales = powers(read(source, f"{name}.weight_scale", torch.uint8, (part.span,)))
    else:
        whole = read_number(source, f"{name}.weight_global_scale", torch.float32, "NVFP4")
        scales = read(source, f"{name}.weight_scale", torch.float32, (part.span,)) / whole
    return CodedWeight(codes, scales, group, codebook=torch.tensor(E2M1))
