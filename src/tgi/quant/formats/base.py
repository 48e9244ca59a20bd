"""What a stored format says: which checkpoints are its own, which tensors a matrix has, how to read rows of it.

Imports no torch when run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tgi.errors import ModelError
from tgi.kernels.weight import StoredRows, Weight, WeightSource

if TYPE_CHECKING:
    import torch

    from tgi.kernels.coded import CodedWeight


@dataclass(frozen=True, slots=True)
class Shard:
    """The share of one of several ranks."""

    rank: int = 0
    ranks: int = 1


WHOLE = Shard()

PIECE_BYTES = 4 << 20
"""Bytes of a matrix read per piece: at no moment do two copies of a matrix exist."""


class Buffer:
    """Room for a piece, always the same: the C library keeps much of what is freed between allocations."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._memory: torch.Tensor | None = None

    def view(self, rows: int, columns: int) -> torch.Tensor:
        """A matrix [rows, columns] of `dtype`; what was there before is gone."""
        import torch  # here: plans import this module, and need no torch

        if self._memory is None or len(self._memory) < rows * columns:
            size = max(PIECE_BYTES // self.dtype.itemsize, rows * columns)
            with torch.inference_mode(False):  # a walk may make it, and what comes after that goes on with it
                self._memory = torch.empty(size, dtype=self.dtype)
        return self._memory[: rows * columns].view(rows, columns)


class StoredFormat(Protocol):
    """One way of keeping matrices in a checkpoint."""

    name: str
    """As in `--quantize`, or what plain weights are called."""
    quantised: bool
    ignored: tuple[str, ...]
    """Regular expressions of full names of tensors that it has and that nothing needs."""

    def pieces(
        self, weight: Weight, source: WeightSource, buffer: Buffer, shard: Shard = WHOLE
    ) -> Iterator[tuple[int, torch.Tensor | CodedWeight]]:
        """The matrix, or a rank's share of it, from the first row to the last: (first row, rows) of each piece.

        Floats lie in `buffer`, of its dtype, until the next piece. Nothing outside the share is read.
        Raises ModelError for tensors that are missing or of another shape.
        """
        ...


def shares(weight: Weight, shard: Shard) -> tuple[Iterator[StoredRows], slice]:
    """The stored rows of a rank's share, and its columns."""
    columns = slice(0, weight.columns)
    if weight.split == "columns":
        columns = slice(*(place * weight.columns // shard.ranks for place in (shard.rank, shard.rank + 1)))
    split = weight.split == "rows" and shard.ranks > 1
    return weight.shard_rows(shard.rank, shard.ranks) if split else weight.stored_rows(), columns


def check_shape(source: WeightSource, name: str, needed: tuple[int, ...]) -> None:
    """For what is read in slices, which a larger tensor has as well. Raises ModelError."""
    if source.shape(name) != needed:
        raise ModelError(f"Tensor {name} has shape {list(source.shape(name))}, the model needs {list(needed)}")
