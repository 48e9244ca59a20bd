"""Even grids: the scale and zero point of each group of a row, and rounding to them.

A weight becomes scale * (code - zero), code 0 ... 2^bits - 1. Scales are kept in float16, as in GPTQ and AWQ files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

CANDIDATES = 24
LEAST = 0.55
"""Of the range of a group the smallest part that is tried: clipping a few weights may serve the others."""
TINY = 2.0**-14
"""The smallest normal float16: smaller scales would lose bits."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How weights are to be kept."""

    bits: int = 4
    group: int = 128
    """Columns; -1: a whole row."""
    symmetric: bool = False
    """The zero point is 2^(bits - 1)."""
    least_zero: int = 0
    search: bool = True
    """Try smaller ranges than that of the weights."""

    @property
    def most(self) -> int:
        """The highest code."""
        return (1 << self.bits) - 1

    def columns(self, columns: int) -> int:
        """Columns of a group in rows of so many."""
        return columns if self.group < 0 else min(self.group, columns)

    def groups(self, columns: int) -> int:
        return -(-columns // self.columns(columns))


@dataclass(frozen=True, slots=True)
class Steps:
    """Scales and zero points of one group, [rows] float32 each."""

    scale: torch.Tensor
    zero: torch.Tensor

    def codes(self, values: torch.Tensor, most: int) -> torch.Tensor:
        """values [rows, ...] -> the nearest codes, float32"""
        shape = (-1, *([1] * (values.dim() - 1)))
        return (values / self.scale.view(shape) + self.zero.view(shape)).round_().clamp_(0, most)

    def weights(self, codes: torch.Tensor) -> torch.Tensor:
        shape = (-1, *([1] * (codes.dim() - 1)))
        return (codes - self.zero.view(shape)) * self.scale.view(shape)


def best_steps(values: torch.Tensor, grid: Grid, importance: torch.Tensor | None = None) -> Steps:
    """For values [rows, columns] of one group: of some ranges the one with the least squared error.

    importance [columns]: what the errors of a column weigh; None: the same.
    """
    low, high = values.amin(1).clamp(max=0), values.amax(1).clamp(min=0)
    best: Steps | None = None
    least = torch.full_like(low, torch.inf)
    for number in range(CANDIDATES if grid.search else 1):
        part = 1 - (1 - LEAST) * number / (CANDIDATES - 1)
        steps = _steps(low * part, high * part, grid)
        errors = (steps.weights(steps.codes(values, grid.most)) - values).square_()
        error = errors.sum(1) if importance is None else errors @ importance
        if best is None:
            best, least = steps, error
            continue
        better = error < least
        best = Steps(torch.where(better, steps.scale, best.scale), torch.where(better, steps.zero, best.zero))
        least = torch.minimum(error, least)
    assert best is not None
    return best


def _steps(low: torch.Tensor, high: torch.Tensor, grid: Grid) -> Steps:
    if grid.symmetric:
        scale = _kept(2 * torch.maximum(-low, high) / grid.most)
        return Steps(scale, torch.full_like(scale, 1 << (grid.bits - 1)))
    scale = _kept((high - low) / grid.most)
    return Steps(scale, (-low / scale).round().clamp(grid.least_zero, grid.most))


def _kept(scale: torch.Tensor) -> torch.Tensor:
    """As float16 has it."""
    return scale.clamp(min=TINY).half().float()
