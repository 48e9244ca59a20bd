"""A decoder as data: a flat list of operations on numbered buffers, with no Python between layers.

Owns the vocabulary of the list, nothing that executes it: `native.program` runs it in one call. Made by
`models.compiled` from a `Decoder`. A buffer holds one row of float32 for each token of the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class Code(IntEnum):
    """Operations, numbered as in csrc/tgi.h, where each is described."""

    EMBED = 0
    ADD = 1
    SCALE = 2
    SOFT_CAP = 3
    RMS_NORM = 4
    LAYER_NORM = 5
    LINEAR = 6
    ROTARY = 7
    ACTIVATION = 8
    GATED = 9
    STORE_KV = 10
    ATTENTION = 11


ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_new": 2, "gelu_pytorch_tanh": 2, "relu": 3, "quick_gelu": 4}
"""Activation names of Hugging Face configs, numbered as in csrc/rows.h."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One entry of the list; what a, b, c, d, x and y mean depends on the code."""

    code: Code
    output: int = 0
    input: int = 0
    width: int = 0
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0
    x: float = 0.0
    y: float = 0.0
    weight: Any = None  # a packed layer, or a float32 tensor
    bias: Any = None  # a float32 tensor


@dataclass(slots=True)
class Program:
    """The list, the widths of its buffers, and which buffer holds the result."""

    heads: int
    kv_heads: int
    head_dim: int
    widths: list[int] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    result: int = 0

    def buffer(self, width: int) -> int:
        """The number of a new buffer."""
        self.widths.append(width)
        return len(self.widths) - 1

    def add(self, code: Code, output: int, input: int = 0, **parameters: Any) -> None:
        self.operations.append(Operation(code, output, input, **parameters))

    def linear(self, output: int, input: int, layer: Any, *, add: bool = False) -> None:
        """output = layer(input), or added to it."""
        self.add(Code.LINEAR, output, input, weight=layer, a=int(add))

    def rms_norm(
        self,
        output: int,
        input: int,
        scale: Any,
        eps: float,
        *,
        heads: int = 1,
        width: int | None = None,
        offset: int = 0,
    ) -> None:
        """Norm of a row, or of each of `heads` heads of `width` numbers from `offset` on."""
        self.add(Code.RMS_NORM, output, input, a=width or self.widths[input], b=heads, c=offset, x=eps, weight=scale)

    def layer_norm(self, output: int, input: int, scale: Any, bias: Any, eps: float) -> None:
        width = self.widths[input]
        self.add(Code.LAYER_NORM, output, input, a=width, b=1, x=eps, weight=scale, bias=bias)

    def rotary(self, buffer: int, heads: int, *, offset: int = 0, table: int = 0, adjacent: bool = False) -> None:
        self.add(Code.ROTARY, buffer, buffer, a=self.head_dim, b=heads, c=offset, d=table, y=float(adjacent))


Tables = Sequence[tuple[Any, Any]]
"""For each rotary table: cos and sin [positions, rotary_dim / 2] float32"""
