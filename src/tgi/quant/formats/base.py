"""What a stored format says: which checkpoints are its own, which tensors a matrix has, how to read rows of it.

Imports no torch when run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tgi.errors import ModelError
from tgi.kernels.weight import Weight, WeightSource

if TYPE_CHECKING:
    import torch

    from tgi.kernels.coded import CodedWeight


@dataclass(frozen=True, slots=True)
class Shard:
    """The share of one of several ranks."""

    rank: int = 0
    ranks: int = 1


WHOLE = Shard()


class StoredFormat(Protocol):
    """One way of keeping matrices in a checkpoint."""

    name: str
    """As in `--quantize`, or what plain weights are called."""
    quantised: bool

    def matches(self, config: dict[str, Any]) -> bool:
        """Whether a checkpoint with this config.json is stored in the format."""
        ...

    def pieces(
        self, weight: Weight, source: WeightSource, dtype: torch.dtype, shard: Shard = WHOLE
    ) -> Iterator[tuple[int, torch.Tensor | CodedWeight]]:
        """The matrix, or a rank's share of it, from the first row to the last: (first row, rows) of each piece.

        Floats have `dtype` and may have any strides; they are valid until the next piece. Nothing outside the share is
        read. Raises ModelError for tensors that are missing or of another shape.
        """
        ...


def check_shape(source: WeightSource, name: str, needed: tuple[int, ...]) -> None:
    """For what is read in slices, which a larger tensor has as well. Raises ModelError."""
    if source.shape(name) != needed:
        raise ModelError(f"Tensor {name} has shape {list(source.shape(name))}, the model needs {list(needed)}")
