"""The embedding of tokens and what families do to it before the first layer, each step around the one before.

Chosen while building. Called by `models.decoder`; `models.compiled` unwraps the steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tgi.layers.linear import Build
from tgi.layers.norm import Norm
from tgi.quant.base import Table

Embedding = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""token_ids, positions [tokens] int64 -> [tokens, hidden]"""


class Embed:
    """The row of each token."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __call__(self, token_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return self.table.lookup(token_ids)


class AddPositions:
    """Plus the row of its position in a table of their own."""

    def __init__(self, build: Build, inner: Embedding, positions: Table) -> None:
        self.inner, self.positions = inner, positions
        self._add = build.ops.add

    def __call__(self, token_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return self._add(self.inner(token_ids, positions), self.positions.lookup(positions))


class Scaled:
    """Times a factor, which is rounded to the serving dtype as the models' training code does."""

    def __init__(self, build: Build, inner: Embedding, factor: float) -> None:
        self.inner = inner
        self.factor = torch.tensor(factor, dtype=build.dtype).item()
        self._scale = build.ops.scale

    def __call__(self, token_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return self._scale(self.inner(token_ids, positions), self.factor)


class Normed:
    """Normalised."""

    def __init__(self, inner: Embedding, norm: Norm) -> None:
        self.inner, self.norm = inner, norm

    def __call__(self, token_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return self.norm(self.inner(token_ids, positions))
