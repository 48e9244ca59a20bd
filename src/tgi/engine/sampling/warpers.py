"""Top-k, top-p and typical-p: which tokens stay, and with which probability.

    top-k      the k most likely and all that tie with the k-th
    top-p      the fewest most likely whose mass reaches p (Holtzman et al., 2020); ties: lower ids first
    typical-p  the tokens whose surprise is closest to the entropy, until their mass reaches p, and all
               that tie with the last (Meister et al., 2022)

In this order, each on the renormalised result of the one before, after temperature: transformers'
and TGI's definitions. `narrow` decides for all rows at once from their most likely tokens, which
nearly always suffice, and says where they do not; `kept_tokens` decides for one row exactly, from
all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tgi.messages import Sampling

CANDIDATES = 256
"""Most likely tokens that `narrow` looks at."""


def has_warper(sampling: Sampling) -> bool:
    return sampling.top_k > 0 or sampling.top_p < 1.0 or sampling.typical_p < 1.0


def needs_whole_row(sampling: Sampling) -> bool:
    """Whether probabilities among the candidates must be relative to all tokens."""
    return has_warper(sampling) and sampling.top_k == 0


@dataclass(slots=True)
class Candidates:
    """The best tokens of each row, best first, and what is known of the rest."""

    logits: Tensor  # [rows, candidates] float32: only these tell ties exactly
    scaled: Tensor  # [rows, candidates] float64: (logit - best logit) / temperature; 0 in the first column
    log_mass: Tensor  # [rows] float64: log(sum(exp(scaled))) over the whole row; read where needs_whole_row
    entropy: Tensor  # [rows] float64: of the whole row; read where only typical-p is active
    whole: bool
    """The candidates are the vocabulary."""


def narrow(candidates: Candidates, samplings: list[Sampling]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the candidates after the warpers, -inf where removed; and where that is exact.

    Result: [rows, candidates] float64 and [rows] bool. A row is exact unless a token outside the
    candidates could have stayed.
    """
    scaled = candidates.scaled
    parameters = [[sampling.top_k, sampling.top_p, sampling.typical_p] for sampling in samplings]
    top_k, top_p, typical_p = torch.tensor(parameters, dtype=torch.float64, device=scaled.device).T.unsqueeze(-1)
    count = scaled.shape[-1]
    least = candidates.logits[:, -1:]
    all_seen = (least == -torch.inf) | candidates.whole
    limits_k, limits_p = top_k > 0, top_p < 1

    kth = candidates.logits.gather(-1, top_k.clamp(1, count).long() - 1)
    kept = (scaled > -torch.inf) & (~limits_k | (candidates.logits >= kth))
    exact_k = (top_k <= count) & (kth > least)

    mass = scaled.masked_fill(~kept, -torch.inf).logsumexp(-1, keepdim=True)
    mass = torch.where(limits_k | all_seen, mass, candidates.log_mass.unsqueeze(-1))
    weights = (scaled - mass).exp() * kept
    cumulative = weights.cumsum(-1)
    kept &= ~limits_p | (cumulative - weights < top_p)
    exact_p = cumulative[:, -1:] >= top_p
    exact = all_seen | torch.where(limits_k, exact_k, limits_p & exact_p)

    if any(sampling.typical_p < 1.0 for sampling in samplings):
        closed = limits_k | limits_p | all_seen  # the kept candidates are all that is left of the row
        whole_mass = torch.where(closed, torch.nan, mass)
        typical, exact_typical = _typical(scaled, kept, whole_mass, candidates.entropy, typical_p)
        kept &= ~(typical_p < 1) | typical
        exact |= ~closed & exact_typical
    broken = scaled[:, :1].isnan()  # a row to be refused: nothing exact would come of it either
    return scaled.masked_fill(~kept, -torch.inf).log_softmax(-1), (exact | broken).squeeze(-1)


def _typical(scaled: Tensor, kept: Tensor, mass: Tensor, entropy: Tensor, typical_p: Tensor) -> tuple[Tensor, Tensor]:
    """Which kept candidates are typical, and whether no other token can be.

    `mass` [rows, 1] is the logarithm of the whole row's mass, or NaN where the kept are all there is.
    """
    closed = mass.isnan()
    own_mass = scaled.masked_fill(~kept, -torch.inf).logsumexp(-1, keepdim=True)
    logprobs = (scaled - torch.where(closed, own_mass, mass)).masked_fill(~kept, -torch.inf)
    probabilities = logprobs.exp()
    own_entropy = -(probabilities * logprobs).nansum(-1, keepdim=True)
    entropy = torch.where(closed, own_entropy, entropy.unsqueeze(-1))
    distance, order = (-logprobs - entropy).abs().sort(-1)  # removed ones are infinitely far
    cumulative = probabilities.gather(-1, order).cumsum(-1)
    last = (cumulative < typical_p).sum(-1, keepdim=True).clamp(max=scaled.shape[-1] - 1)
    limit = distance.gather(-1, last)
    # A token outside is less likely than the last candidate, so further off if that one is beyond the limit.
    exact = (cumulative[:, -1:] >= typical_p) & (limit < -logprobs[:, -1:] - entropy)
    return kept & ((-logprobs - entropy).abs() <= limit), exact


def kept_tokens(row: npt.NDArray[np.float32], sampling: Sampling) -> npt.NDArray[np.bool_]:
    """The tokens of one row [vocabulary] that all warpers keep, whatever its shape: [vocabulary] bool.

    A few milliseconds for 150,000 tokens. The row has a finite best.
    """
    best = float(row.max())

    def weigh(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        with np.errstate(over="ignore"):  # a tiny temperature: exp(-inf) is the 0 it should be
            return np.exp((values.astype(np.float64) - best) / sampling.temperature)

    pool = row[row > -np.inf]
    if 0 < sampling.top_k < len(pool):
        pool = pool[pool >= np.partition(pool, -sampling.top_k)[-sampling.top_k]]
    if sampling.top_p < 1.0:
        weights = weigh(pool)
        total = weights.sum()
        # Tokens below (1 - p) / n of the mass have less than 1 - p together: no need to sort those.
        pool = pool[weights > 0.5 * (1.0 - sampling.top_p) * total / len(pool)]
        values = np.sort(pool)[::-1]
        weights = weigh(values)
        stop = max(1, int((np.cumsum(weights) - weights < sampling.top_p * total).sum()))
    else:
        values = np.sort(pool)[::-1]
        stop = len(values)
    start = 0
    if sampling.typical_p < 1.0:
        start, stop = _typical_range(weigh(values[:stop]), sampling.typical_p)
    highest, lowest = values[start], values[stop - 1]
    kept = (row <= highest) & (row > lowest)
    ties = int((values[start:stop] == lowest).sum())  # top-p may keep only some of them
    kept[np.flatnonzero(row == lowest)[:ties]] = True
    return kept


def _typical_range(weights: npt.NDArray[np.float64], typical_p: float) -> tuple[int, int]:
    """Typical tokens among descending weights: a range, since surprise grows along them."""
    probabilities = weights / weights.sum()
    with np.errstate(divide="ignore"):
        surprise = -np.log(probabilities)
    positive = probabilities > 0
    entropy = float((probabilities[positive] * surprise[positive]).sum())
    distance = np.abs(surprise - entropy)
    order = np.argsort(distance)
    last = min(int((np.cumsum(probabilities[order]) < typical_p).sum()), len(order) - 1)
    inside = np.flatnonzero(distance <= distance[order[last]])
    return int(inside[0]), int(inside[-1]) + 1
