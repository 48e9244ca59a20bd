"""Rounding ordinary weights to codes on the fly: `--quantize int8`, `int6`, `int5` and `int4`.

The definition of what the native kernels do while they pack (csrc/rounding.cpp): for each row and group the scale with
the least squared error among some, as a panel's header keeps it: 24 bits, or a bfloat16 where there are two.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tgi.kernels.coded import CodedWeight
from tgi.kernels.formats import CodeFormat
from tgi.kernels.inputs import Inputs
from tgi.kernels.rotation import ROTATION, rotate

SCALE_BITS = -256
"""Mask of the bits of a float32 scale that a header of one scale keeps."""
TINY = 1e-30
"""Weights up to this are zeros."""


def round_to_codes(weight: torch.Tensor, format: CodeFormat, inputs: Inputs | None = None) -> CodedWeight:
    """weight [rows, columns] of any float dtype -> the same in codes; with inputs, of formats with error feedback."""
    columns, values = weight.shape[1], weight.float()
    if format.rotated:
        values = rotate(values)
    scales = kept_scales(best_scales(values, format), format)
    of_columns = by_column(scales, format, columns)
    codes = nearest(values * inverse(of_columns), format)
    if inputs is not None and format.feedback:
        fed_back = with_feedback(values, of_columns, format, inputs)
        if cost(fed_back * of_columns - values, inputs) < cost(codes * of_columns - values, inputs):
            codes = fed_back
    return coded(codes, scales, format)


def with_feedback(weight: torch.Tensor, scales: torch.Tensor, format: CodeFormat, inputs: Inputs) -> torch.Tensor:
    """The values, in units of `scales` [rows, columns], that the rotated weights [rows, columns] round to.

    Column by column of each block of 128: what rounding added is taken from the later ones, see `Inputs.factors`.
    """
    columns = weight.shape[1]
    rest, steps = (F.pad(part, (0, -columns % ROTATION)).unflatten(1, (-1, ROTATION)) for part in (weight, scales))
    rest, codes, factors = rest.clone(), torch.zeros_like(rest), inputs.factors()
    for k in range(ROTATION):
        codes[..., k] = nearest(rest[..., k] * inverse(steps[..., k]), format)
        excess = codes[..., k] * steps[..., k] - rest[..., k]
        rest[..., k + 1 :] += excess.unsqueeze(-1) * factors[:, k, k + 1 :]
    return codes.flatten(1)[:, :columns]


def cost(errors: torch.Tensor, inputs: Inputs) -> torch.Tensor:
    """What errors [rows, columns] of rotated weights do to the outputs, by the diagonal that `Inputs` know."""
    return (rotate(errors).square() * inputs.importance).sum()


def coded(values: torch.Tensor, scales: torch.Tensor, format: CodeFormat) -> CodedWeight:
    """values [rows, columns] that `nearest` gave, in units of their scales [rows, groups]."""
    if format.book is None:
        zeros = torch.full_like(scales, format.zero)
        codes = (values + format.zero).to(torch.uint8)
        return CodedWeight(codes, scales, format.columns, zeros, rotated=format.rotated)
    book = torch.tensor(format.book, dtype=torch.float32, device=values.device)
    codes = torch.bucketize(values.contiguous(), book).to(torch.uint8)
    return CodedWeight(codes, scales, format.columns, codebook=book, rotated=format.rotated)


def kept_scales(scales: torch.Tensor, format: CodeFormat) -> torch.Tensor:
    """Scales as a header keeps them."""
    if format.scales == 2:
        return scales.bfloat16().float()
    return (scales.view(torch.int32) & SCALE_BITS).view(torch.float32)


def inverse(scales: torch.Tensor) -> torch.Tensor:
    return torch.where(scales != 0, 1 / scales, 0.0)


def nearest(values: torch.Tensor, format: CodeFormat) -> torch.Tensor:
    """The nearest values that codes have, for weights in units of their scales."""
    if format.book is None:
        return values.round().clamp(format.lowest, format.highest)
    book = torch.tensor(format.book, dtype=torch.float32, device=values.device)
    return book[torch.bucketize(values.contiguous(), (book[1:] + book[:-1]) / 2, right=True)]


def by_column(scales: torch.Tensor, format: CodeFormat, columns: int) -> torch.Tensor:
    """Scales [rows, groups] of each column, [rows, columns]."""
    return scales.repeat_interleave(format.columns, 1)[:, :columns]


def best_scales(weight: torch.Tensor, format: CodeFormat) -> torch.Tensor:
    """weight [rows, columns] float32 -> the scale of each group, [rows, groups]; 0 for a group of zeros."""
    padding = -weight.shape[1] % format.columns
    values = F.pad(weight, (0, padding)).unflatten(1, (-1, format.columns))
    there = F.pad(torch.ones_like(weight[:1]), (0, padding)).unflatten(
        1, (-1, format.columns)
    )  # 0: a column of padding
    high, low = values.amax(-1).clamp(min=0), values.amin(-1).clamp(max=0)
    peak = torch.maximum(high, -low)
    # With more codes below zero than above the sign of the scale is worth choosing: the peak gets the lowest code.
    flipped = (high > -low) if -format.lowest > format.highest else torch.zeros_like(high, dtype=torch.bool)
    sign = torch.where(flipped, -1.0, 1.0)
    unit, inverted = sign * peak, torch.where(peak > TINY, sign / peak, 0.0)
    best, least = unit / -format.lowest, torch.full_like(peak, torch.inf)
    for candidate in range(format.candidates):
        end = format.first + format.step * candidate
        scaled = values * (inverted * end).unsqueeze(-1)
        codes = nearest(scaled, format) * there
        errors = scaled - codes
        dot, square = (errors * codes).sum(-1), codes.square().sum(-1)
        more = torch.where(square > 0, dot / square, 0.0)  # than the candidate the least-squares scale is
        error = (errors.square().sum(-1) - dot * more) / end**2
        best = torch.where(error < least, unit * (1 + more) / end, best)
        least = torch.minimum(error, least)
    return torch.where(peak > TINY, best, 0.0)
