"""Which experts each row goes to, and with which weights; see `program.Experts`."""

from __future__ import annotations

import torch

from tgi.kernels.program import Experts

SMALLEST = 1e-20
"""Added to the sum that weights are divided by: all scores may be 0."""


def route(
    op: Experts, logits: torch.Tensor, correction: torch.Tensor | None, scales: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The experts of each row and their weights, both [tokens, experts of a row].

    logits [tokens, experts]; correction and scales [experts] float32.
    """
    wide = logits.float()
    experts = wide.shape[-1] - op.shared
    own = wide[:, :experts]
    if op.scores == "sparsemixer":
        return _sparsemixer(own, op.jitter)
    scores = own.softmax(-1) if op.scores == "softmax" else own.sigmoid()
    # Scores too small to differ are told apart by their logits, where nothing is added to them.
    compared = own if correction is None and op.groups == 1 else _eligible(op, scores, correction)
    ids = compared.argsort(dim=-1, descending=True, stable=True)[:, : op.top]  # topk promises no order of equal ones
    weights = scores.gather(-1, ids)
    if op.normalise:
        weights = weights / (weights.sum(-1, keepdim=True) + SMALLEST)
    weights = weights * op.scale if scales is None else weights * (op.scale * scales[ids])
    if op.shared:
        ids = torch.cat((ids, torch.full_like(ids[:, :1], experts)), dim=-1)
        weights = torch.cat((weights, wide[:, experts:].sigmoid()), dim=-1)
    return ids, weights


def _eligible(op: Experts, scores: torch.Tensor, correction: torch.Tensor | None) -> torch.Tensor:
    """Corrected scores, with those of experts outside the best groups at minus infinity."""
    scores = scores if correction is None else scores + correction
    if op.groups == 1:
        return scores
    grouped = scores.unflatten(-1, (op.groups, -1))
    best = grouped.topk(op.group_best, dim=-1).values.sum(-1)
    chosen = best.argsort(dim=-1, descending=True, stable=True)[:, : op.top_groups]
    allowed = torch.zeros_like(best, dtype=torch.bool).scatter_(-1, chosen, value=True)
    return grouped.masked_fill(~allowed.unsqueeze(-1), float("-inf")).flatten(-2)


def _sparsemixer(logits: torch.Tensor, jitter: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Liu et al. 2023: the best expert, then the best of the others. The weight of each is its softmax among those not
    further below it than 2 * jitter times the larger of the two sizes."""
    ids, weights, left = [], [], logits
    for _ in range(2):
        best = left.max(-1, keepdim=True)
        far = (best.values - logits) / torch.maximum(logits.abs(), best.values) > 2 * jitter
        weights.append(left.masked_fill(far, float("-inf")).softmax(-1).gather(-1, best.indices))
        ids.append(best.indices)
        left = left.scatter(-1, best.indices, float("-inf"))
    return torch.cat(ids, dim=-1), torch.cat(weights, dim=-1)
