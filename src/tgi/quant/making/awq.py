"""AWQ (Lin et al. 2023, arXiv 2306.00978): columns with large inputs are made larger before rounding, and so lose less.

The matrix is rounded times s by columns, and what gives its inputs is divided by s.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from tgi.quant.making.gptq import nearest
from tgi.quant.making.grid import Grid

POWERS = 20
ROWS = 512
"""Of a matrix that are looked at."""


def column_scales(
    weight: torch.Tensor, hessian: torch.Tensor, magnitude: torch.Tensor, grid: Grid, shared: torch.Tensor | None = None
) -> torch.Tensor:
    """s [columns] float32: of magnitude^p, p from 0 to 1, that with the least error of the outputs.

    weight [rows, columns]; hessian [columns, columns] of the inputs; magnitude [columns]: the mean of |inputs|. shared
    [columns] int64: columns of one number need the same s; None: each has its own.
    """
    rows = weight[:: max(1, len(weight) // ROWS)][:ROWS]
    best, least = torch.ones_like(magnitude), torch.inf
    for number in range(POWERS):
        scales = _scales(magnitude, number / POWERS, shared)
        errors = nearest(rows * scales, replace(grid, search=False)).weights() / scales - rows
        error = float(((errors @ hessian) * errors).sum())
        if error < least:
            best, least = scales, error
    return best


def _scales(magnitude: torch.Tensor, power: float, shared: torch.Tensor | None) -> torch.Tensor:
    scales = magnitude.clamp(min=1e-4).pow(power)
    if shared is not None:
        count = int(shared.max()) + 1
        sums = torch.zeros(count).index_add_(0, shared, scales)
        scales = (sums / torch.bincount(shared, minlength=count))[shared]
    return scales / (scales.max() * scales.min()).sqrt()
