"""`Given`: weights of a test in place of a checkpoint, for backends to load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from tgi.kernels.coded import CodedWeight
from tgi.kernels.formats import CODE_FORMATS, CodeFormat
from tgi.kernels.inputs import Inputs
from tgi.kernels.weight import Vector, Weight
from tgi.quant.rounding import round_to_codes


class Given:
    """A `WeightReader` over tensors by name: `name`.weight, `name`.bias, names of vectors."""

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        dtype: torch.dtype = torch.float32,
        quantize: str | None = None,
        activations: str = "int8",
        *,
        rotated: bool = False,
        calibration: Sequence[int] = (),
    ) -> None:
        self.rotated, self.calibration = rotated, calibration
        self.keeps_codes = self.stored_codes = False
        self.tensors, self.dtype, self.quantize, self.activations = tensors, dtype, quantize, activations

    def format_of(self, weight: Weight) -> CodeFormat | None:
        if self.quantize is None or weight.role == "table":
            return None
        return replace(CODE_FORMATS[self.quantize], rotated=self.rotated)

    def pieces(
        self, weight: Weight, *, rounded: bool = True, inputs: Inputs | None = None
    ) -> Iterator[tuple[int, torch.Tensor | CodedWeight]]:
        matrix = torch.cat([self.tensors[f"{name}.weight"] for name in weight.names]).to(self.dtype)
        format, half = self.format_of(weight), weight.rows // 2
        for first, piece in ((0, matrix[:half]), (half, matrix[half:])):
            if len(piece):
                yield first, round_to_codes(piece, format, inputs) if format is not None and rounded else piece

    def bias(self, weight: Weight) -> torch.Tensor | None:
        return torch.cat([self.tensors[f"{name}.bias"] for name in weight.names]) if weight.bias else None

    def vector(self, vector: Vector) -> torch.Tensor:
        return torch.cat([self.tensors[name].flatten() for name in vector.names]) + vector.add
