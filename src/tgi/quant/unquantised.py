"""Plain weights: a matrix in the serving dtype and one call of `Ops.linear`.

Called by `layers.linear` where no quantisation format matches; formats fall back to it for layers they
leave alone.
"""

from __future__ import annotations

import torch

from tgi.kernels.ops import Ops
from tgi.quant.base import LinearCall, LinearShape, WeightSource


class Unquantised:
    """Streams the stored parts into one matrix [out, in] and one bias [out]."""

    def create(
        self, shape: LinearShape, source: WeightSource, ops: Ops, dtype: torch.dtype, device: torch.device
    ) -> LinearCall:
        weight = torch.empty((shape.rows, shape.in_features), dtype=dtype, device=device)
        bias = torch.empty(shape.rows, dtype=dtype, device=device) if shape.bias else None
        for part in shape.stored_rows(source):
            if shape.transposed:
                source.read(f"{part.name}.weight", weight[part.target].t(), (slice(None), part.source))
            else:
                source.read(f"{part.name}.weight", weight[part.target], (part.source,))
            if bias is not None:
                source.read(f"{part.name}.bias", bias[part.target], (part.source,))
        return Linear(ops, weight, bias)

    def table(
        self,
        name: str,
        rows: int,
        width: int,
        *,
        head: bool,
        source: WeightSource,
        ops: Ops,
        dtype: torch.dtype,
        device: torch.device,
    ) -> DenseTable:
        weight = torch.empty((rows, width), dtype=dtype, device=device)
        source.read(f"{name}.weight", weight)
        return DenseTable(ops, weight)


class Linear:
    """A linear layer with its weights in place."""

    def __init__(self, ops: Ops, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight = weight
        self.bias = bias
        self._linear = ops.linear

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._linear(x, self.weight, self.bias)


class DenseTable:
    """An embedding table in the serving dtype."""

    def __init__(self, ops: Ops, weight: torch.Tensor) -> None:
        self.weight = weight
        self._embedding, self._linear = ops.embedding, ops.linear

    def lookup(self, ids: torch.Tensor) -> torch.Tensor:
        return self._embedding(ids, self.weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._linear(x, self.weight, None)
