"""The feed-forward layer: up (and gate), activation, down. Called by `models.decoder`."""

from __future__ import annotations

import torch

from tgi.layers.linear import Build, make_linear


class FeedForward:
    """down(activation(up(x))), or down(activation(gate(x)) * up(x)) with gate and up as one product."""

    def __init__(
        self,
        build: Build,
        up: tuple[str, ...],
        down: str,
        *,
        hidden: int,
        inner: int,
        activation: str,
        gated: bool,
        bias: bool,
        transposed: bool,
    ) -> None:
        widths = (inner, inner) if gated else (inner,)
        self.up = make_linear(build, up, hidden, widths, bias=bias, transposed=transposed)
        self.activation = (build.ops.gated_activations if gated else build.ops.activations)[activation]
        self.down = make_linear(build, (down,), inner, (hidden,), bias=bias, transposed=transposed)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.activation(self.up(x)))
