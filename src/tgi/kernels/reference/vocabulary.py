"""Finding the best and picking at random in wide rows, without a sort.

A row of a vocabulary is cut into blocks, so that one vectorised pass over it leaves little to do.
Every result depends on its own row alone, bit for bit, and ties go to the lower token id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from tgi.kernels.types import Masks

RANK_BLOCK = 32
"""Ids to a block when ranking: the k best lie in the k blocks with the best maxima."""
SUM_BLOCK = 256
"""Ids to a block when summing: short enough for float32, few enough to finish in float64."""


def _reduce_blocks(rows: Tensor, block: int, reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Reduce the blocks of each row: [rows, width] -> [rows, ceil(width / block)]."""
    whole = rows.shape[-1] // block * block
    parts = []
    if whole:
        parts.append(reduce(rows[:, :whole].unflatten(-1, (-1, block)), -1))
    if whole < rows.shape[-1]:
        parts.append(reduce(rows[:, whole:], -1).unsqueeze(-1))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _block_ids(blocks: Tensor, block: int) -> Tensor:
    """Ids in the blocks of each row: [rows, n] -> [rows, n * block]; may run past the width."""
    within = torch.arange(block, device=blocks.device)
    return (blocks.unsqueeze(-1) * block + within).flatten(1)


def _order_keys(values: Tensor, ids: Tensor) -> Tensor:
    """int64 keys that grow with the float32 value (NaN last) and, among equals, fall with the id (ids < 2**31)."""
    bits = (values + 0.0).contiguous().view(torch.int32)  # + 0.0 makes -0.0 equal to 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    ordered = ordered.masked_fill(values.isnan(), 0x7FFFFFFF)  # a NaN has either sign; it must come first
    return (ordered.long() << 32) - ids


def ranked(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best of each row by (value descending, id ascending): values and ids, [rows, count].

    A NaN ranks above all, so that it cannot stay unseen. `count` must not exceed the width.
    """
    width = rows.shape[-1]
    if width <= count * RANK_BLOCK:
        ids = torch.arange(width, device=rows.device).expand(rows.shape)
        keys = _order_keys(rows, ids)
    else:
        maxima = _reduce_blocks(rows, RANK_BLOCK, torch.amax)
        order = torch.arange(maxima.shape[-1], device=rows.device)
        blocks = _order_keys(maxima, order).topk(count, dim=-1, sorted=False).indices
        ids = _block_ids(blocks, RANK_BLOCK)
        keys = _order_keys(rows.gather(-1, ids.clamp(max=width - 1)), ids)
        keys = keys.masked_fill(ids >= width, torch.iinfo(torch.int64).min)
    best = keys.topk(count, dim=-1).indices
    ids = ids.gather(-1, best)
    return rows.gather(-1, ids), ids


def row_sums(rows: Tensor) -> Tensor:
    """Sum of every row in float64: [rows, width] float32 -> [rows]."""
    return _reduce_blocks(rows, SUM_BLOCK, torch.sum).double().sum(-1)


def pick(weights: Tensor, uniform: Tensor) -> Tensor:
    """Inverse of the cumulative weights in order of id: the first id whose sum exceeds u * total.

    weights [rows, width] float32, not negative and not all 0; uniform [rows] float64 in [0, 1);
    result [rows] int64. An id of weight 0 is never picked.
    """
    blocks, rest = _pick_sorted(_reduce_blocks(weights, SUM_BLOCK, torch.sum).double(), uniform)
    ids = _block_ids(blocks.unsqueeze(-1), SUM_BLOCK)
    width = weights.shape[-1]
    inside = weights.gather(-1, ids.clamp(max=width - 1)).double().masked_fill(ids >= width, 0.0)
    # What is left of u decides inside the block, relative to the block's own exact sum, so that the
    # rounding of the block sums cannot push the target past its end.
    return blocks * SUM_BLOCK + _pick_sorted(inside, rest)[0]


def pick_among(weights: Tensor, uniform: Tensor) -> Tensor:
    """As `pick` for a few columns: weights [rows, columns] float64 -> column [rows]."""
    return _pick_sorted(weights, uniform)[0]


class TorchVocabulary:
    """`kernels.types.Vocabulary` in torch, on any device: the reference of other implementations."""

    def rank(self, logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
        return ranked(logits, count)

    def rank_and_mass(self, logits: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        values, ids = ranked(logits, count)
        return values, ids, self.log_mass(logits, ids[:, 0])

    def best_and_mass(self, logits: Tensor) -> tuple[list[int], list[float]]:
        _, ids, masses = self.rank_and_mass(logits, 1)
        return ids[:, 0].tolist(), masses.tolist()

    def log_mass(self, logits: Tensor, best: Tensor, divisors: Tensor | None = None) -> Tensor:
        # Minus the logarithm of the largest probability: softmax is a fused kernel that keeps a row in the cache.
        return -_divided(logits, divisors).softmax(-1).gather(-1, best.unsqueeze(-1)).squeeze(-1).double().log()

    def pick(self, logits: Tensor, uniform: Tensor, divisors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        probabilities = _divided(logits, divisors).softmax(-1)
        ids = pick(probabilities, uniform)
        return ids, probabilities.gather(-1, ids.unsqueeze(-1)).squeeze(-1).double().log()

    def mask(self, logits: Tensor, rows: Sequence[int], masks: Masks) -> None:
        for row, banned in zip(rows, _banned(masks, logits), strict=True):
            logits[row].masked_fill_(banned, -torch.inf)

    def best_allowed(
        self, logits: Tensor, rows: Sequence[int], masks: Masks, *, with_masses: bool
    ) -> tuple[list[int], list[float], list[float]]:
        values, ids = ranked(allowed := logits[list(rows)].masked_fill_(_banned(masks, logits), -torch.inf), 1)
        masses = self.log_mass(allowed, ids[:, 0]).tolist() if with_masses else []
        return ids[:, 0].tolist(), values[:, 0].tolist(), masses


def _banned(masks: Masks, logits: Tensor) -> Tensor:
    """As booleans [rows, vocabulary] beside the logits."""
    bits = np.unpackbits(masks.view(np.uint8), axis=1, bitorder="little", count=logits.shape[-1])
    return torch.from_numpy(bits == 0).to(logits.device)


def _divided(logits: Tensor, divisors: Tensor | None) -> Tensor:
    return logits if divisors is None else logits / divisors.unsqueeze(-1)


def _pick_sorted(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Column picked by inverse cumulative weight, and where in it u fell, again in [0, 1)."""
    cumulative = weights.cumsum(-1)
    # u <= 1 - 2**-53, so that even rounded the target is below the total: it falls on a weight.
    target = uniform.unsqueeze(-1) * cumulative[:, -1:]
    column = (cumulative <= target).sum(-1, keepdim=True)
    weight = weights.gather(-1, column)
    before = cumulative.gather(-1, column) - weight
    rest = ((target - before) / weight).clamp(0.0, 1.0 - 2.0**-53)
    return column.squeeze(-1), rest.squeeze(-1)
