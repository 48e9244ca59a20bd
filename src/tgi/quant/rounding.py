"""Rounding ordinary weights to codes on the fly: `--quantize int8` and `int4`.

The definition of what the native kernels do while they pack (csrc/pack.cpp): for each row and group the scale with the
least squared error among some, kept with the 24 upper bits that a panel's header has room for.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tgi.kernels.coded import CodedWeight
from tgi.kernels.formats import CodeFormat

SCALE_BITS = -256
"""Mask of the bits of a float32 scale that a header keeps."""


def round_to_codes(weight: torch.Tensor, format: CodeFormat) -> CodedWeight:
    """weight [rows, columns] of any float dtype -> the same in codes."""
    columns = weight.shape[1]
    values = F.pad(weight.float(), (0, -columns % format.group)).unflatten(1, (-1, format.group))
    scales = best_scales(values, format)
    scales = (scales.view(torch.int32) & SCALE_BITS).view(torch.float32)
    inverse = torch.where(scales != 0, 1 / scales, 0.0)
    codes = _codes(values, inverse, format) + format.zero
    zeros = torch.full_like(scales, format.zero)
    return CodedWeight(codes.flatten(1)[:, :columns].to(torch.uint8), scales, format.group, zeros)


def best_scales(values: torch.Tensor, format: CodeFormat) -> torch.Tensor:
    """values [rows, groups, group] float32 -> the scale of each group, [rows, groups]; 0 for a group of zeros."""
    high, low = values.amax(-1).clamp(min=0), values.amin(-1).clamp(max=0)
    peak = torch.maximum(high, -low)
    # With one more code below zero than above the sign of the scale is worth choosing: the peak gets the lowest code.
    flipped = (high > -low) if -format.lowest > format.highest else torch.zeros_like(high, dtype=torch.bool)
    signed = torch.where(flipped, -peak, peak)
    best, least = signed / -format.lowest, torch.full_like(peak, torch.inf)
    for candidate in range(format.candidates):
        scale = signed / (format.first + format.step * candidate)
        for _ in range(2):
            error, refit = _error_and_refit(values, scale, format)
            better = error < least
            best, least = torch.where(better, scale, best), torch.where(better, error, least)
            scale = torch.where(refit.abs() < 1e-30, scale, refit)
    return torch.where(peak > 1e-30, best, 0.0)


def _codes(values: torch.Tensor, inverse: torch.Tensor, format: CodeFormat) -> torch.Tensor:
    return (values * inverse.unsqueeze(-1)).round().clamp(format.lowest, format.highest)


def _error_and_refit(
    values: torch.Tensor, scale: torch.Tensor, format: CodeFormat
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared error of rounding to multiples of `scale`, and the scale that fits those multiples best."""
    codes = _codes(values, torch.where(scale != 0, 1 / scale, 0.0), format)
    error = (values - codes * scale.unsqueeze(-1)).square().sum(-1)
    squares = codes.square().sum(-1)
    return error, torch.where(squares > 0, (values * codes).sum(-1) / squares, scale)
