"""The seam where quantisation formats enter: who recognises a checkpoint and who builds its linears.

Owns the protocols and the list of formats. A format says whether a checkpoint is its own, which tensors
a linear layer has, and builds the callable that multiplies by it; nobody else knows that formats exist.
Called by `layers.linear` through the method chosen here, and by the loader. Imports no torch when run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tgi.errors import ModelError

if TYPE_CHECKING:
    import torch

    from tgi.kernels.ops import Ops


class WeightSource(Protocol):
    """Where tensors come from: `models.weights.Weights`, or a stand-in of a test."""

    def has(self, name: str) -> bool:
        """Whether the checkpoint has this tensor."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Its shape. Raises ModelError if it is missing."""
        ...

    def read(self, name: str, into: torch.Tensor, index: tuple[slice, ...] = ()) -> None:
        """Copy tensor `name`, or the part `index` of it, into `into`, casting to its dtype.

        Raises ModelError naming the tensor if it is missing or has another shape.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows `stored` ... `stored + count - 1` of a tensor of the checkpoint are rows `first` ... of the layer."""

    name: str
    stored: int
    first: int
    count: int

    @property
    def source(self) -> slice:
        return slice(self.stored, self.stored + self.count)

    @property
    def target(self) -> slice:
        return slice(self.first, self.first + self.count)


@dataclass(frozen=True, slots=True)
class LinearShape:
    """One linear layer of the model, possibly made of several stored ones.

    Its parts are stacked by output rows: q, k, v or gate, up. `names` has one entry for each of
    `out_features`, or a single one where the checkpoint stores them already stacked.
    """

    names: tuple[str, ...]
    """Tensor names without `.weight` and `.bias`."""
    in_features: int
    out_features: tuple[int, ...]
    bias: bool
    transposed: bool = False
    """The weight is stored [in, out]."""
    head: bool = False
    """It is the output head, which formats may treat with more care."""
    groups: int = 1
    """The single stored tensor alternates between the parts this many times: q, k, v of the first head, then
    of the second ... The layer always has all of q, then all of k, then all of v."""

    @property
    def rows(self) -> int:
        return sum(self.out_features)

    def stored_rows(self, source: WeightSource) -> Iterator[StoredRows]:
        """Where the layer's rows stand in the checkpoint. Raises ModelError for a weight of another shape."""
        single = len(self.names) == 1
        for name, rows in zip(self.names, (self.rows,) if single else self.out_features, strict=True):
            shape = (self.in_features, rows) if self.transposed else (rows, self.in_features)
            check_shape(source, f"{name}.weight", shape)
            if self.bias:
                check_shape(source, f"{name}.bias", (rows,))
        first = 0
        for index, rows in enumerate((self.rows,) if single and self.groups == 1 else self.out_features):
            count, name = rows // self.groups, self.names[0 if single else index]
            offset = first // self.groups if single else 0
            for group in range(self.groups):
                yield StoredRows(name, group * self.rows // self.groups + offset, first + group * count, count)
            first += rows


def check_shape(source: WeightSource, name: str, needed: tuple[int, ...]) -> None:
    """For what is read in slices, which a larger tensor has as well. Raises ModelError."""
    if source.shape(name) != needed:
        raise ModelError(f"Tensor {name} has shape {list(source.shape(name))}, the model needs {list(needed)}")


LinearCall = Callable[["torch.Tensor"], "torch.Tensor"]
"""x [tokens, in] -> [tokens, out]"""


class Table(Protocol):
    """An embedding table, which with a tied head is also the head: called as a linear layer it gives logits."""

    def lookup(self, ids: torch.Tensor) -> torch.Tensor:
        """ids [tokens] int64 -> [tokens, width]"""
        ...

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [tokens, width] -> [tokens, rows]"""
        ...


class LinearMethod(Protocol):
    """Makes linear layers of one storage format."""

    def create(
        self, shape: LinearShape, source: WeightSource, ops: Ops, dtype: torch.dtype, device: torch.device
    ) -> LinearCall:
        """Read the layer's tensors and return what computes it."""
        ...

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
    ) -> Table:
        """Read the embedding table `name`.weight; head: it will be called as a linear layer."""
        ...


class Format(Protocol):
    """A quantisation format: `name` as in `--quantize`, detection, and its linear method."""

    name: str

    def matches(self, config: dict[str, Any]) -> bool:
        """Whether a checkpoint with this config.json is stored in the format."""
        ...

    def method(self, config: dict[str, Any]) -> LinearMethod:
        """Its linear method. Raises ModelError for a variant it cannot compute."""
        ...


def detect(config: dict[str, Any], formats: Sequence[Format] = ()) -> Format | None:
    """The format of a checkpoint, None for plain weights. Raises ModelError if nobody knows it."""
    for candidate in formats:
        if candidate.matches(config):
            return candidate
    settings = config.get("quantization_config") or config.get("compression_config")
    if not settings:
        return None
    found = settings.get("quant_method", "unknown") if isinstance(settings, dict) else "unknown"
    known = ", ".join(candidate.name for candidate in formats) or "none yet"
    raise ModelError(
        f"The checkpoint is quantised as {found}; formats supported: {known}. "
        "Serve the original, unquantised checkpoint of this model instead."
    )
