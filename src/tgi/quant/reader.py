"""`ModelWeights`: the weights of one checkpoint as backends take them.

Owns the choice of what each matrix is kept as: what its stored format gives, or codes that it is rounded to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from tgi.kernels.coded import CodedWeight
from tgi.kernels.formats import CodeFormat
from tgi.kernels.inputs import Inputs
from tgi.kernels.weight import Vector, Weight, WeightSource
from tgi.quant.formats.base import Buffer, StoredFormat
from tgi.quant.formats.plain import Plain
from tgi.quant.library_rounding import round_as
from tgi.quant.rounding import round_to_codes
from tgi.quant.scheme import format_of, rounds_as_library


class ModelWeights:
    """See `kernels.types.WeightReader`.

    stored: the format of the checkpoint. quantize: a value of `quant.scheme` or of `quant.library_rounding` rounds
    plain weights while they are read; None: floats of `dtype`. calibration: see `WeightReader.calibration`.
    """

    def __init__(
        self,
        source: WeightSource,
        dtype: torch.dtype,
        quantize: str | None = None,
        activations: str = "int8",
        stored: StoredFormat | None = None,
        calibration: Sequence[int] = (),
    ) -> None:
        self.source, self.dtype, self.quantize, self.activations = source, dtype, quantize, activations
        self.stored, self.calibration = stored or Plain(), calibration
        self._buffer = Buffer(dtype)
        self.stored_codes = self.stored.quantised
        self.keeps_codes = self.stored.quantised or rounds_as_library(quantize)

    def format_of(self, weight: Weight) -> CodeFormat | None:
        return format_of(weight, self.quantize)

    def pieces(
        self, weight: Weight, *, rounded: bool = True, inputs: Inputs | None = None
    ) -> Iterator[tuple[int, torch.Tensor | CodedWeight]]:
        format = self.format_of(weight)
        if self.quantize is not None and rounds_as_library(self.quantize, weight):
            yield from round_as(self.quantize, weight, lambda: self._floats(weight))
            return
        for first, piece in self._stored(weight):
            if format is not None and rounded and isinstance(piece, torch.Tensor):
                yield first, round_to_codes(piece, format, inputs)
            else:
                yield first, piece

    def _stored(self, weight: Weight) -> Iterator[tuple[int, torch.Tensor | CodedWeight]]:
        for first, piece in self.stored.pieces(weight, self.source, self._buffer):
            if weight.unit_rows and isinstance(piece, torch.Tensor):
                piece.copy_(F.normalize(piece.float()))
            yield first, piece

    def _floats(self, weight: Weight) -> Iterator[tuple[int, torch.Tensor]]:
        for first, piece in self._stored(weight):
            yield first, piece.dequantise() if isinstance(piece, CodedWeight) else piece

    def bias(self, weight: Weight) -> torch.Tensor | None:
        if not weight.bias:
            return None
        bias = torch.empty(weight.rows, dtype=self.dtype)
        for stored in weight.stored_rows():
            part = bias[stored.first : stored.first + stored.count]
            part = part.unsqueeze(0) if weight.within is not None and weight.within.stacked else part
            self.source.read(weight.bias_tensor(stored.name), part, weight.index_of(stored.stored_slice))
        return bias

    def vector(self, vector: Vector) -> torch.Tensor:
        values = torch.empty(vector.size, dtype=torch.float32 if vector.add or vector.exact else self.dtype)
        size = vector.size // len(vector.names)
        for number, name in enumerate(vector.names):
            shape, part = self.source.shape(name), values[number * size : (number + 1) * size]
            self.source.read(name, part.view(shape) if math.prod(shape) == size else part)
        return values + vector.add if vector.add else values
