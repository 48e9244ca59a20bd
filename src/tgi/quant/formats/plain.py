"""Plain weights: one matrix of floats for each module, read in pieces. Imports no torch until it reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tgi.kernels.weight import StoredRows, Weight, WeightSource
from tgi.quant.formats.base import PIECE_BYTES, WHOLE, Buffer, Shard, check_shape

if TYPE_CHECKING:
    import torch

PIECE_ROWS = 16
"""Pieces are multiples of this many rows, and at least one of them."""


class Plain:
    """See `StoredFormat`."""

    name = "plain"
    quantised = False

    def matches(self, config: dict[str, Any]) -> bool:
        return not (config.get("quantization_config") or config.get("compression_config"))

    def pieces(
        self, weight: Weight, source: WeightSource, buffer: Buffer, shard: Shard = WHOLE
    ) -> Iterator[tuple[int, torch.Tensor]]:
        for name, shape in weight.stored_shapes():
            check_shape(source, name, shape)
        columns = slice(0, weight.columns)
        if weight.split == "columns":
            columns = slice(*(place * weight.columns // shard.ranks for place in (shard.rank, shard.rank + 1)))
        split = weight.split == "rows" and shard.ranks > 1
        for stored in weight.shard_rows(shard.rank, shard.ranks) if split else weight.stored_rows():
            yield from _read(weight, source, stored, columns, buffer)


def _read(
    weight: Weight, source: WeightSource, stored: StoredRows, columns: slice, buffer: Buffer
) -> Iterator[tuple[int, torch.Tensor]]:
    width = columns.stop - columns.start
    step = max(1, PIECE_BYTES // (width * buffer.dtype.itemsize) // PIECE_ROWS) * PIECE_ROWS
    name = f"{stored.name}.weight"
    for begin in range(0, stored.count, step):
        count = min(step, stored.count - begin)
        rows = slice(stored.stored + begin, stored.stored + begin + count)
        if weight.transposed:
            piece = buffer.view(width, count)
            source.read(name, piece, (columns, rows))
            piece = piece.t()
        else:
            piece = buffer.view(count, width)
            source.read(name, piece, (rows, columns))
        yield stored.first + begin, piece
