"""GGUF: matrices of ggml's blocks, whole rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch

from tgi.kernels.coded import CodedWeight
from tgi.kernels.weight import Weight, WeightSource
from tgi.quant.formats.base import PIECE_BYTES, WHOLE, Buffer, Shard, check_shape, shares
from tgi.quant.formats.ggml import decode
from tgi.quant.formats.modules import cut
from tgi.quant.formats.plain import PIECE_ROWS


class Blocks(WeightSource, Protocol):
    """A source that also gives rows as they are stored."""

    def rows(self, name: str, rows: slice) -> tuple[str, torch.Tensor]:
        """ggml's name of the type, and the blocks [rows, bytes] uint8."""
        ...


class Gguf:
    """See `StoredFormat`. Its source must be `Blocks`."""

    name = "gguf"
    quantised = True
    ignored: tuple[str, ...] = ()

    def pieces(
        self, weight: Weight, source: WeightSource, buffer: Buffer, shard: Shard = WHOLE
    ) -> Iterator[tuple[int, torch.Tensor | CodedWeight]]:
        for name, shape in weight.stored_shapes():
            if name.endswith(".weight"):  # never transposed, whatever the original checkpoint does
                check_shape(source, name, shape[::-1] if weight.transposed else shape)
        rows, columns = shares(weight, shard)
        step = max(1, PIECE_BYTES // (weight.columns * buffer.dtype.itemsize) // PIECE_ROWS) * PIECE_ROWS
        for stored in rows:
            name = f"{stored.name}.weight"
            for begin in range(0, stored.count, step):
                count = min(step, stored.count - begin)
                span = slice(stored.stored + begin, stored.stored + begin + count)
                yield stored.first + begin, _piece(source, name, span, columns, buffer)


def _piece(source: WeightSource, name: str, rows: slice, columns: slice, buffer: Buffer) -> torch.Tensor | CodedWeight:
    if source.dtype(name) != torch.uint8:
        piece = buffer.view(rows.stop - rows.start, columns.stop - columns.start)
        source.read(name, piece, (rows, columns))
        return piece
    assert hasattr(source, "rows"), "GGUF is read from a source of blocks"
    blocks: Blocks = source  # type: ignore[assignment]
    found = decode(*blocks.rows(name, rows))
    if isinstance(found, CodedWeight):
        return cut(found, columns)
    piece = buffer.view(rows.stop - rows.start, columns.stop - columns.start)
    piece.copy_(found[:, columns])
    return piece
