"""The one seam through which every linear layer of a model is made.

Owns `Build`, what building a layer needs. Quantisation enters here through `Build.method`; tensor
parallelism will, by slicing the shapes and reads. Called by the layers and by `models.decoder`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tgi.kernels.ops import Ops
from tgi.quant.base import LinearCall, LinearMethod, LinearShape, Table, WeightSource


@dataclass(frozen=True, slots=True)
class Build:
    """What every layer is built with."""

    ops: Ops
    source: WeightSource
    method: LinearMethod
    dtype: torch.dtype
    device: torch.device

    def tensor(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A tensor of the checkpoint in the serving dtype or `dtype`. Raises ModelError if it is not so shaped."""
        tensor = torch.empty(shape, dtype=dtype or self.dtype, device=self.device)
        self.source.read(name, tensor)
        return tensor


def make_linear(
    build: Build,
    names: tuple[str, ...],
    in_features: int,
    out_features: tuple[int, ...],
    *,
    bias: bool,
    transposed: bool = False,
    head: bool = False,
    groups: int = 1,
) -> LinearCall:
    """A linear layer of the model, fused from as many stored parts as `names` has; see `LinearShape`."""
    shape = LinearShape(names, in_features, out_features, bias, transposed, head, groups)
    return build.method.create(shape, build.source, build.ops, build.dtype, build.device)


def make_table(build: Build, name: str, rows: int, width: int, *, head: bool = False) -> Table:
    """The embedding table `name`.weight [rows, width]; head: it is the output head as well."""
    return build.method.table(
        name, rows, width, head=head, source=build.source, ops=build.ops, dtype=build.dtype, device=build.device
    )
