"""Weights packed for the native kernels, in the serving dtype or rounded to 8 or 4 bits while they are read.

Owns the way from stored rows to packed ones, a piece at a time: at no moment do two copies of a matrix
exist. Called by `layers.linear` where `Ops.native` is there; `--quantize int8` and `int4` are this method.
"""

from __future__ import annotations

import torch

from tgi.kernels.ops import Ops, PackedLayer
from tgi.quant.base import LinearCall, LinearShape, StoredRows, WeightSource, check_shape

PIECE_BYTES = 4 << 20
"""Of a matrix as read at once."""
TILE_ROWS = 16
"""Pieces are multiples of so many rows, and at least one of them."""


class Packed:
    """Layers in `format`: a serving dtype, int8 or int4.

    Heads stop at int6: the errors of one reach every logit unmixed. Tables
    that are only looked up stay in the serving dtype, since a step reads few of their rows.
    """

    def __init__(self, format: str, activations: str = "int8") -> None:
        """activations: what layers of int8, int6 and int4 round them to, as in `ops.Native.pack`."""
        self.format, self.activations = format, activations
        self.head_format = "int6" if format == "int4" else format
        self._buffer = torch.empty(0)

    def create(
        self, shape: LinearShape, source: WeightSource, ops: Ops, dtype: torch.dtype, device: torch.device
    ) -> LinearCall:
        assert ops.native is not None
        format = self.head_format if shape.head else self.format
        layer = ops.native.pack(format, shape.in_features, shape.rows, bias=shape.bias, activations=self.activations)
        for part in shape.stored_rows(source):
            self._pack(layer, source, part, shape.in_features, shape.transposed, dtype)
            if shape.bias:
                bias = torch.empty(part.count, dtype=dtype)
                source.read(f"{part.name}.bias", bias, (part.source,))
                layer.set_bias(bias, part.first)
        layer.finish()
        return layer

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
    ) -> PackedTable:
        assert ops.native is not None
        format = self.head_format if head else str(dtype).removeprefix("torch.")
        layer = ops.native.pack(format, width, rows, activations=self.activations)
        check_shape(source, f"{name}.weight", (rows, width))
        self._pack(layer, source, StoredRows(name, 0, 0, rows), width, False, dtype)
        layer.finish()
        return PackedTable(layer, dtype)

    def _pack(
        self,
        layer: PackedLayer,
        source: WeightSource,
        rows: StoredRows,
        width: int,
        transposed: bool,
        dtype: torch.dtype,
    ) -> None:
        """Read rows of a weight in pieces and pack them."""
        step = max(1, PIECE_BYTES // (width * dtype.itemsize) // TILE_ROWS) * TILE_ROWS
        name = f"{rows.name}.weight"
        for begin in range(0, rows.count, step):
            count = min(step, rows.count - begin)
            part = slice(rows.stored + begin, rows.stored + begin + count)
            if transposed:
                piece = self._piece(width, count, dtype)
                source.read(name, piece, (slice(0, width), part))
                layer.pack(piece.t(), rows.first + begin)
            else:
                piece = self._piece(count, width, dtype)
                source.read(name, piece, (part,))
                layer.pack(piece, rows.first + begin)

    def _piece(self, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """Room for a piece, always the same: the C library keeps much of what is freed between allocations."""
        if self._buffer.dtype != dtype or len(self._buffer) < rows * columns:
            self._buffer = torch.empty(max(PIECE_BYTES // dtype.itemsize, rows * columns), dtype=dtype)
        return self._buffer[: rows * columns].view(rows, columns)


class PackedTable:
    """An embedding table whose rows are looked up in packed memory."""

    def __init__(self, layer: PackedLayer, dtype: torch.dtype) -> None:
        self.layer, self.dtype = layer, dtype

    def lookup(self, ids: torch.Tensor) -> torch.Tensor:
        return self.layer.rows(ids).to(self.dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)
