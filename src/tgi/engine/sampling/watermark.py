"""The soft watermark of Kirchenbauer et al., "A watermark for large language models" (2023).

The previous token id seeds a permutation of the vocabulary; the logits of its first `gamma` share
(the green list) are raised by `delta`. Seed (hash key * previous id) and permutation
(`torch.randperm` with a CPU generator) are TGI's, so detectors written for it find the mark; the
CPU generator also on other devices, so that a text can be checked anywhere.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

HASH_KEY = 15485863
_CACHE_BYTES = 32 << 20


class Watermark:
    """Green lists of the ids seen lately: a permutation costs milliseconds, a byte mask a thousandth."""

    def __init__(self, vocab_size: int, device: torch.device, gamma: float, delta: float) -> None:
        self.delta = delta
        self._vocab_size = vocab_size
        self._device = device
        self._green = int(vocab_size * gamma)
        self._masks: OrderedDict[int, Tensor] = OrderedDict()
        self._capacity = max(16, _CACHE_BYTES // vocab_size)

    def mask(self, previous: int) -> Tensor:
        """The green list after token `previous`: [vocabulary] bool."""
        mask = self._masks.get(previous)
        if mask is not None:
            self._masks.move_to_end(previous)
            return mask
        generator = torch.Generator().manual_seed(HASH_KEY * previous)
        green = torch.randperm(self._vocab_size, generator=generator)[: self._green]
        mask = torch.zeros(self._vocab_size, dtype=torch.bool)
        mask[green] = True
        self._masks[previous] = mask = mask.to(self._device)
        if len(self._masks) > self._capacity:
            self._masks.popitem(last=False)
        return mask

    def apply(self, row: Tensor, previous: int) -> None:
        """Raise the green logits of `row` [vocabulary] in place."""
        green = self.mask(previous).view(torch.uint8).to(row.dtype)  # a bool would be converted one by one
        row.add_(green, alpha=self.delta)
