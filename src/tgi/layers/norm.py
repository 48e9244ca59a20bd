"""Normalisation layers, chosen while building. Called by `models.decoder`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from tgi.layers.linear import Build

Norm = Callable[[torch.Tensor], torch.Tensor]
"""x [tokens, dim] -> [tokens, dim]"""


class NoNorm:
    """Where other models have a norm and this one has none."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x


class RmsNorm:
    def __init__(self, build: Build, name: str, dim: int, eps: float, offset: float) -> None:
        self.scale = _scale(build, name, dim, offset)
        self.eps = eps
        self._rms_norm = build.ops.rms_norm

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._rms_norm(x, self.scale, self.eps)


class LayerNorm:
    def __init__(self, build: Build, name: str, dim: int, eps: float, offset: float) -> None:
        self.scale = _scale(build, name, dim, offset)
        self.bias = build.tensor(f"{name}.bias", dim)
        self.eps = eps
        self._layer_norm = build.ops.layer_norm

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._layer_norm(x, self.scale, self.bias, self.eps)


def make_norm(
    build: Build, kind: Literal["rms", "layer"], name: str | None, dim: int, eps: float, offset: float = 0.0
) -> Norm:
    """The norm of `kind` whose tensors are `name`.weight, to which `offset` is added, and `name`.bias."""
    if name is None:
        return NoNorm()
    return {"rms": RmsNorm, "layer": LayerNorm}[kind](build, name, dim, eps, offset)


def _scale(build: Build, name: str, dim: int, offset: float) -> torch.Tensor:
    """In the serving dtype, or in float32 with an offset: 1 + w would lose most of w's bits in bfloat16."""
    if not offset:
        return build.tensor(f"{name}.weight", dim)
    return build.tensor(f"{name}.weight", dim, dtype=torch.float32) + offset
