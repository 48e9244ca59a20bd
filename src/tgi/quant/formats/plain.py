"""Plain weights: one matrix of floats for each module, read in pieces. Imports no torch until it reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from tgi.kernels.weight import StoredRows, Weight, WeightSource
from tgi.quant.formats.base import PIECE_BYTES, WHOLE, Buffer, Shard, check_shape, shares

if TYPE_CHECKING:
    import torch

PIECE_ROWS = 16
"""Pieces are multiples of this many rows, and at least one of them."""


class Plain:
    """See `StoredFormat`."""

    name = "plain"
    quantised = False
    ignored: tuple[str, ...] = ()

    def pieces(
        self, weight: Weight, source: WeightSource, buffer: Buffer, shard: Shard = WHOLE
    ) -> Iterator[tuple[int, torch.Tensor]]:
        for name, shape in weight.stored_shapes():
            check_shape(source, name, shape)
        rows, columns = shares(weight, shard)
        for stored in rows:
            yield from read_floats(weight, source, stored, columns, buffer)


def read_floats(
    weight: Weight, source: WeightSource, stored: StoredRows, columns: slice, buffer: Buffer
) -> Iterator[tuple[int, torch.Tensor]]:
    """Rows of a module in pieces; columns: those of the share."""
    width = columns.stop - columns.start
    step = max(1, PIECE_BYTES // (width * buffer.dtype.itemsize) // PIECE_ROWS) * PIECE_ROWS
    name = weight.tensor(stored.name)
    for begin in range(0, stored.count, step):
        count = min(step, stored.count - begin)
        rows = replace(stored, stored=stored.stored + begin * stored.step, count=count).stored_slice
        if weight.transposed:
            piece = buffer.view(width, count)
            source.read(name, _as_stored(weight, piece), weight.index_of(columns, rows))
            piece = piece.t()
        else:
            piece = buffer.view(count, width)
            source.read(name, _as_stored(weight, piece), weight.index_of(rows, columns))
        yield stored.first + begin, piece


def _as_stored(weight: Weight, piece: torch.Tensor) -> torch.Tensor:
    return piece.unsqueeze(0) if weight.within is not None and weight.within.stacked else piece
