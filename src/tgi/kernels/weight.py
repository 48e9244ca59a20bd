"""References to the weights of a model: which stored tensors make up a matrix or a vector of its program.

Pure data: names in the checkpoint, shapes, how parts are stacked, how a shard cuts them. Imports no torch when run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows `stored` ... `stored + count - 1` of tensor `name` are rows `first` ... of the matrix."""

    name: str
    stored: int
    first: int
    count: int
    step: int = 1
    """Distance of one stored row from the next."""

    @property
    def stored_slice(self) -> slice:
        return slice(self.stored, self.stored + (self.count - 1) * self.step + 1, self.step)


@dataclass(frozen=True, slots=True)
class Within:
    """Where in a larger stored tensor a matrix stands: the experts of a layer, or the heads of a projection."""

    first: int
    """Its first place along the first dimension."""
    size: int
    """Places along that dimension."""
    stacked: bool = False
    """A place holds a whole matrix; else a row of one."""


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix [rows, columns] of the model, possibly made of several stored ones.

    Its parts are stacked by rows: q, k, v or gate, up. `names` has one entry for each of `parts`, or a single one where
    the checkpoint stores them already stacked.
    """

    names: tuple[str, ...]
    """Names of modules: their tensors are `name`.weight and, with `bias`, `name`.bias."""
    parts: tuple[int, ...]
    """Rows of each part."""
    columns: int
    bias: bool = False
    transposed: bool = False
    """Stored as [columns, rows]."""
    groups: int = 1
    """The single stored tensor alternates between the parts this many times: q, k, v of the first head, then of the
    second ... The matrix always has all of q, then all of k, then all of v."""
    order: tuple[int, ...] = ()
    """In which order the parts follow each other in the single stored tensor; empty: that of the matrix."""
    role: Literal["layer", "head", "table", "router"] = "layer"
    """head: gives the logits (and is the embedding as well where the two are tied); table: only looked up;
    router: chooses experts. Formats may treat them with more care."""
    within: Within | None = None
    """The single stored tensor holds other matrices as well."""
    suffixes: tuple[str, str] = (".weight", ".bias")
    """What follows the names of modules in those of their tensors."""
    unit_rows: bool = False
    """Each row is divided by its length when it is read."""
    gives_keys: bool = False
    """Keys and values of attention come out of it, usually with the queries."""
    split: Literal["rows", "columns"] | None = None
    """How several ranks share it: each part by rows, or by columns, whose partial sums are added. None: not shared."""

    @property
    def rows(self) -> int:
        return sum(self.parts)

    @property
    def distinct_rows(self) -> int:
        """Rows, of parts that have the same tensor once."""
        if len(self.names) == 1:
            return self.rows
        return sum(dict(zip(self.names, self.parts, strict=True)).values())

    def stored_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Each tensor of the checkpoint that this matrix is made of, and its shape there."""
        rows = (self.rows,) if len(self.names) == 1 else self.parts
        for name, count in zip(self.names, rows, strict=True):
            yield self.tensor(name), self._within((self.columns, count) if self.transposed else (count, self.columns))
            if self.bias:
                yield self.bias_tensor(name), self._within((count,))

    def tensor(self, name: str) -> str:
        """The stored tensor of module `name`."""
        return name + self.suffixes[0]

    def bias_tensor(self, name: str) -> str:
        return name + self.suffixes[1]

    def _within(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.within is None:
            return shape
        return (self.within.size, *(shape if self.within.stacked else shape[1:]))

    def index_of(self, *part: slice) -> tuple[slice, ...]:
        """Where a part of the matrix, or of its bias, given along the dimensions it is stored in, is in its tensor."""
        if self.within is None:
            return part
        first = self.within.first
        if self.within.stacked:
            return (slice(first, first + 1), *part)
        return (slice(first + part[0].start, first + part[0].stop, part[0].step), *part[1:])

    def stored_rows(self) -> Iterator[StoredRows]:
        """Where the rows stand in the checkpoint, in their order."""
        single, first = len(self.names) == 1, 0
        order = self.order or tuple(range(len(self.parts)))
        before = [sum(self.parts[part] for part in order[: order.index(index)]) for index in range(len(self.parts))]
        whole = single and self.groups == 1 and not self.order
        for index, rows in enumerate((self.rows,) if whole else self.parts):
            count, name = rows // self.groups, self.names[0 if single else index]
            offset = before[index] // self.groups if single else 0
            if single and count == 1 and self.groups > 1:  # row by row: one slice of every so-many rows
                yield StoredRows(name, offset, first, rows, self.rows // self.groups)
                first += rows
                continue
            for group in range(self.groups):
                yield StoredRows(name, group * self.rows // self.groups + offset, first + group * count, count)
            first += rows

    def shard_rows(self, rank: int, ranks: int) -> Iterator[StoredRows]:
        """The rows of one of several ranks, numbered within its share: of each part an equal piece.

        With groups, whole groups: a head's q, k and v stay together. `parts` or `groups` must divide evenly.
        """
        first = 0
        for stored in _by_part(self, rank, ranks):
            yield replace(stored, first=first)
            first += stored.count


def _by_part(weight: Weight, rank: int, ranks: int) -> Iterator[StoredRows]:
    if weight.groups > 1:
        assert weight.groups % ranks == 0, f"{weight.groups} groups of {weight.names[0]} over {ranks} ranks"
        mine = range(rank * weight.groups // ranks, (rank + 1) * weight.groups // ranks)
        for number, stored in enumerate(weight.stored_rows()):
            if stored.step > 1:  # a row to a group
                place, first = stored.stored + mine.start * stored.step, stored.first + mine.start
                yield StoredRows(stored.name, place, first, len(mine), stored.step)
            elif number % weight.groups in mine:
                yield stored
        return
    begin = 0
    pieces = list(weight.stored_rows())
    for rows in weight.parts:
        assert rows % ranks == 0, f"{rows} rows of {weight.names[0]} over {ranks} ranks"
        count = rows // ranks
        low = begin + rank * count
        for stored in pieces:  # a single stored tensor covers all parts
            if stored.first <= low < stored.first + stored.count:
                yield StoredRows(stored.name, stored.stored + low - stored.first, low, count)
        begin += rows


@dataclass(frozen=True, slots=True)
class Vector:
    """A vector [size] of the model, such as the scale of a norm: the numbers of these tensors in their order."""

    names: tuple[str, ...]
    size: int
    add: float = 0.0
    """Added to what is stored: 1 where checkpoints store the distance from 1. The sum is kept in float32, since in
    bfloat16 it would lose most of the stored bits."""
    exact: bool = False
    """Kept in float32 too, whatever the serving dtype."""


class WeightSource(Protocol):
    """Where stored tensors come from, whatever the file format: `models.weights` or a stand-in of a test."""

    def has(self, name: str) -> bool:
        """Whether the checkpoint has this tensor."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Its shape. Raises ModelError if it is missing."""
        ...

    def dtype(self, name: str) -> torch.dtype:
        """The dtype it is stored in. Raises ModelError if it is missing."""
        ...

    def read(self, name: str, into: torch.Tensor, index: tuple[slice, ...] = ()) -> None:
        """Copy tensor `name`, or the part `index` of it, into `into`, casting to its dtype.

        Raises ModelError naming the tensor if it is missing or has another shape.
        """
        ...
