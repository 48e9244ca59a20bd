"""GPTQ (Frantar et al. 2022, arXiv 2210.17323): column by column, what rounding adds is made up for in the later ones.

With H = sum of x x^T over inputs x of a matrix, the error of rounding W to Q costs tr((W - Q) H (W - Q)^T). U is the
upper Cholesky factor of H^-1: after column k is rounded with e = (w - q) / U_kk, w_j -= e U_kj for all later j.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from tgi.errors import ModelError
from tgi.quant.making.grid import Grid, Steps, best_steps

BLOCK = 128
"""Columns after which the errors of all of them are taken from the rest together."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """A matrix on its grid."""

    codes: torch.Tensor  # [rows, columns] uint8
    scales: torch.Tensor  # [rows, groups] float32, that float16 holds
    zeros: torch.Tensor  # [rows, groups] float32, whole numbers
    of_column: torch.Tensor  # [columns] int64: the group of each

    def rows_of(self, rows: torch.Tensor) -> Rounded:
        """Some rows [count] int64 of it."""
        return replace(self, codes=self.codes[rows], scales=self.scales[rows], zeros=self.zeros[rows])

    def weights(self) -> torch.Tensor:
        """[rows, columns] float32"""
        return (self.codes.float() - self.zeros[:, self.of_column]) * self.scales[:, self.of_column]


def gptq(
    weight: torch.Tensor, hessian: torch.Tensor, grid: Grid, *, percdamp: float = 0.01, act_order: bool = False
) -> Rounded:
    """weight [rows, columns] float32, hessian [columns, columns] float32 of the inputs.

    The columns with the largest inputs come first, when most others can still make up for them: those of a group, and
    the groups among each other. act_order: of all of them; groups are then of columns that follow each other so.
    Raises ModelError for inputs that are no numbers.
    """
    columns = weight.shape[1]
    diagonal = hessian.diagonal()
    size, groups = grid.columns(columns), grid.groups(columns)
    order = largest_first(diagonal, columns if act_order else size)
    upper = factor(hessian[order][:, order], percdamp)
    rest = weight[:, order].clone()
    rest[:, diagonal[order] == 0] = 0  # inputs that are always 0
    codes = torch.empty_like(rest)
    steps: list[Steps] = []
    for begin in range(0, columns, BLOCK):
        end = min(begin + BLOCK, columns)
        errors = torch.empty((len(rest), end - begin))
        for k in range(begin, end):
            if k % size == 0:
                # What the columns of this block before k have added to the later ones is not taken from them yet.
                pending = rest[:, k : k + size].clone()
                if k + size > end and k > begin:
                    pending[:, end - k :] -= errors[:, : k - begin] @ upper[begin:k, end : min(k + size, columns)]
                importance = diagonal[order][k : k + size]
                steps.append(best_steps(pending, grid, importance if bool(importance.any()) else None))
            here = steps[-1]
            codes[:, k] = here.codes(rest[:, k], grid.most)
            error = (rest[:, k] - here.weights(codes[:, k])) / upper[k, k]
            errors[:, k - begin] = error
            if k + 1 < end:
                rest[:, k + 1 : end].addr_(error, upper[k, k + 1 : end], alpha=-1)
        if end < columns:
            rest[:, end:].addmm_(errors, upper[begin:end, end:], alpha=-1)
    back = torch.argsort(order)
    assert len(steps) == groups
    group_of = torch.arange(columns) // size
    if not act_order:  # the groups in the order of their columns again
        steps = [steps[at] for at in torch.argsort(order[::size])]
    return Rounded(
        codes[:, back].to(torch.uint8),
        torch.stack([one.scale for one in steps], 1),
        torch.stack([one.zero for one in steps], 1),
        group_of[back] if act_order else group_of,
    )


def largest_first(diagonal: torch.Tensor, size: int) -> torch.Tensor:
    """An order of columns, [columns] int64; diagonal [columns]: the mean squares of their inputs.

    Groups of `size` columns stay together, those of the largest mean first, and within each the largest; columns that
    are no whole group stay the last.
    """
    whole = len(diagonal) // size * size
    parts = diagonal[:whole].view(-1, size)
    groups = torch.argsort(parts.mean(1), descending=True, stable=True)
    inside = torch.argsort(parts, dim=1, descending=True, stable=True)
    rest = whole + torch.argsort(diagonal[whole:], descending=True, stable=True)
    return torch.cat(((inside + size * torch.arange(len(parts)).unsqueeze(1))[groups].flatten(), rest))


def nearest(weight: torch.Tensor, grid: Grid) -> Rounded:
    """Without a text: each weight to the nearest code."""
    columns = weight.shape[1]
    size = grid.columns(columns)
    steps = [best_steps(part, grid) for part in weight.split(size, 1)]
    codes = torch.cat([one.codes(part, grid.most) for one, part in zip(steps, weight.split(size, 1), strict=True)], 1)
    return Rounded(
        codes.to(torch.uint8),
        torch.stack([one.scale for one in steps], 1),
        torch.stack([one.zero for one in steps], 1),
        torch.arange(columns) // size,
    )


def corrected(weight: torch.Tensor, missing: torch.Tensor, hessian: torch.Tensor, percdamp: float) -> torch.Tensor:
    """The matrix V [rows, columns] with the least |V x - y|^2, near W: makes up for errors of the matrices before it.

    missing [rows, columns]: the mean of (y - W x) x^T, x being the inputs that it gets. hessian [columns, columns]: the
    mean of x x^T.
    """
    return weight + torch.linalg.solve(damped(hessian, percdamp).float(), missing.t()).t()


def damped(hessian: torch.Tensor, percdamp: float) -> torch.Tensor:
    """float64, with a part of the mean of its diagonal added, and 1 where that is 0."""
    result = hessian.double().clone()
    diagonal = result.diagonal()
    if not bool(torch.isfinite(diagonal).all()):
        raise ModelError("the calibration text gives inputs that are no numbers: the weights are damaged")
    diagonal[diagonal == 0] = 1
    diagonal += percdamp * diagonal.mean()
    return result


def factor(hessian: torch.Tensor, percdamp: float) -> torch.Tensor:
    """The upper Cholesky factor [columns, columns] float32 of the inverse of a damped Hessian.

    H = R R^T with R upper triangular gives it as R^-1, without inverting H.
    """
    damping = percdamp
    while True:
        lower, failed = torch.linalg.cholesky_ex(damped(hessian, damping).flip(0, 1))
        if not int(failed):
            break
        damping = 10 * max(damping, 1e-4)
    upper = lower.flip(0, 1)
    unit = torch.eye(len(upper), dtype=upper.dtype)
    return torch.linalg.solve_triangular(upper, unit, upper=True).float()
