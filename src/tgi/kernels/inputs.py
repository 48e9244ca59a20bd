"""`Inputs`: what rounding with error feedback knows of the inputs that a matrix gets.

With inputs x the error of rounding a row w to q costs (w - q) H (w - q), H = E[x x^T]. Of H only the diagonal is taken
from the data, so that a few hundred tokens suffice; rotating spreads it over each block of 128 columns, where an error
of one column can then be made up for in the later ones, as GPTQ does (arXiv 2210.17323).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tgi.kernels.rotation import ROTATION, block_lengths, hadamard

DAMPING = 0.01
"""Of the mean of the diagonal, added to it."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Of a matrix whose weights are kept rotated."""

    importance: torch.Tensor  # [columns] float32: mean square of each input, damped; before the rotation

    def factors(self) -> torch.Tensor:
        """[blocks, 128, 128] float32: from weight j of a block is taken factors[k, j] times what rounding k < j
        added."""
        return torch.cat([_factors(part.double()) for part in self.importance.split(ROTATION)]).float()


def inputs_of(mean_squares: torch.Tensor) -> Inputs | None:
    """mean_squares [columns] of the inputs; None where they say nothing: not finite, or all zero."""
    damping = DAMPING * float(mean_squares.mean())
    if not 0 < damping < math.inf:
        return None
    return Inputs((mean_squares + damping).float())


def _factors(importance: torch.Tensor) -> torch.Tensor:
    """[1, 128, 128] float64 of one block, possibly shorter.

    With H = R R^T, R upper triangular, U = R^-1 is the upper Cholesky factor of H^-1 (H^-1 = U^T U), and the factors
    are U over its diagonal.
    """
    count = len(importance)
    matrix = torch.block_diag(*(hadamard(length, torch.float64) for length in block_lengths(count)))
    moment = (matrix * importance) @ matrix
    upper = torch.linalg.cholesky(moment.flip(0, 1)).flip(0, 1)
    inverse = torch.linalg.solve_triangular(upper, torch.eye(count, dtype=torch.float64), upper=True)
    factors = torch.zeros((1, ROTATION, ROTATION), dtype=torch.float64)
    factors[0, :count, :count] = (inverse / inverse.diagonal().unsqueeze(1)).triu(1)
    return factors
