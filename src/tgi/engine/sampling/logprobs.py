"""Log-probabilities: normalisers, alternatives, and those of a prompt. Natural
logarithms, from float32 logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from tgi.kernels.types import Vocabulary

Alternatives: TypeAlias = list[tuple[int, float]]
"""(token id, log-probability), best first."""

MAX_LOGITS = 1 << 24
"""Logits worked on at a time for prompt log-probabilities (64 MiB of float32)."""


def ranked_logprobs(vocabulary: Vocabulary, logits: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities [rows, count] float64 and ids of the best; and log(sum(exp)) of each row as a pair.

    The pair [2, rows, 1] float64 is (best logit, log mass): a logit's log-probability is logit - best - mass.
    """
    values, ids, mass = vocabulary.rank_and_mass(logits, count)
    base = torch.stack([values[:, :1].double(), mass.unsqueeze(-1)])
    return values.double() - base[0] - base[1], ids, base


def alternatives(logprobs: Tensor, ids: Tensor, counts: Sequence[int]) -> list[Alternatives]:
    """The first `counts[row]` of the ranked log-probabilities and ids, [rows, n] with n >= counts.

    Impossible tokens (-inf) are left out, so a list can be shorter than asked for.
    """
    if not any(counts):
        return [[] for _ in counts]
    return [
        [(token, logprob) for token, logprob in zip(row_ids[:count], row[:count], strict=True) if logprob > -torch.inf]
        for row_ids, row, count in zip(ids.tolist(), logprobs.tolist(), counts, strict=True)
    ]


@torch.inference_mode()
def prompt_logprobs(
    vocabulary: Vocabulary, logits: Tensor, targets: Sequence[int], top_n: int
) -> tuple[list[float], list[Alternatives]]:
    """Log-probability of `targets[i]` under row i of `logits` [rows, vocabulary], with the `top_n` best of each row.

    The model's own distribution, no processor applied; NaN for rows whose logits are not finite.
    Works on few rows at a time; a caller who does so too needs memory independent of the prompt.
    """
    assert len(logits) == len(targets)
    width = logits.shape[-1]
    rows = max(1, MAX_LOGITS // width)
    count = min(max(top_n, 1), width)
    logprobs: list[float] = []
    best: list[Alternatives] = []
    for start in range(0, len(targets), rows):
        some = logits[start : start + rows].float()
        wanted = torch.tensor(targets[start : start + rows], device=logits.device).unsqueeze(-1)
        ranks, ids, (top, mass) = ranked_logprobs(vocabulary, some, count)
        logprobs += (some.gather(-1, wanted).double() - top - mass).squeeze(-1).tolist()
        best += alternatives(ranks, ids, [min(top_n, count)] * len(some))
    return logprobs, best
