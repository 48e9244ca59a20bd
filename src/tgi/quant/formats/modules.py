"""`ByModule`: matrices whose modules are stored in a format, or as plain floats where its writer left them alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.weight import StoredRows, Weight, WeightSource
from tgi.quant.formats.base import PIECE_BYTES, WHOLE, Buffer, Shard, check_shape, shares
from tgi.quant.formats.plain import PIECE_ROWS, read_floats


@dataclass(frozen=True, slots=True)
class Part:
    """Rows begin ... end - 1 of a stored module, which as a whole is a matrix [rows, columns]."""

    module: str
    rows: int
    columns: int
    begin: int
    end: int

    @property
    def span(self) -> slice:
        return slice(self.begin, self.end)


class ByModule(ABC):
    """The common half of `StoredFormat`: each module is asked for by itself.

    A format says which modules it stores and reads rows of one; everything else of the checkpoint is plain.
    """

    name = ""
    quantised = True
    ignored: tuple[str, ...] = ()

    @abstractmethod
    def stores(self, source: WeightSource, module: str) -> bool:
        """Whether the module is stored in the format. Raises ModelError for one of which tensors are missing."""

    @abstractmethod
    def read(self, source: WeightSource, part: Part) -> CodedWeight:
        """Some rows of such a module, all columns. Raises ModelError."""

    def pieces(
        self, weight: Weight, source: WeightSource, buffer: Buffer, shard: Shard = WHOLE
    ) -> Iterator[tuple[int, torch.Tensor | CodedWeight]]:
        """See `StoredFormat`."""
        totals = dict(zip(weight.names, (weight.rows,) if len(weight.names) == 1 else weight.parts, strict=True))
        rows, columns = shares(weight, shard)
        for stored in rows:
            if self.stores(source, stored.name):
                total = totals[stored.name]
                if weight.within is not None or stored.step > 1:
                    yield from self._read_within(weight, source, stored, total, columns, buffer)
                else:
                    yield from self._read(weight, source, stored, total, columns)
                continue
            for name, shape in weight.stored_shapes():
                if name == weight.tensor(stored.name):
                    check_shape(source, name, shape)
            yield from read_floats(weight, source, stored, columns, buffer)

    def _read(
        self, weight: Weight, source: WeightSource, stored: StoredRows, total: int, columns: slice
    ) -> Iterator[tuple[int, CodedWeight]]:
        step = max(1, PIECE_BYTES // weight.columns // PIECE_ROWS) * PIECE_ROWS
        for begin in range(0, stored.count, step):
            end = min(begin + step, stored.count)
            part = Part(stored.name, total, weight.columns, stored.stored + begin, stored.stored + end)
            yield stored.first + begin, cut(self.read(source, part), columns)

    def _read_within(
        self, weight: Weight, source: WeightSource, stored: StoredRows, total: int, columns: slice, buffer: Buffer
    ) -> Iterator[tuple[int, torch.Tensor | CodedWeight]]:
        """Rows of a matrix that is a part of a stored one. Raises ModelError for what a format cannot cut."""
        within = weight.within
        if within is None or within.stacked or stored.step > 1:
            raise ModelError(
                f"{stored.name} holds several matrices of the model in {self.name}, which cannot be cut: serve the "
                "checkpoint of floats"
            )
        if not weight.transposed:
            moved = replace(stored, stored=within.first + stored.stored)
            yield from self._read(weight, source, moved, within.size, columns)
            return
        part = Part(stored.name, within.size, total, within.first, within.first + weight.columns)
        floats = self.read(source, part).dequantise().to(buffer.dtype)[columns]
        yield stored.first, floats.T[stored.stored : stored.stored + stored.count]


def cut(coded: CodedWeight, columns: slice) -> CodedWeight:
    """The columns of a rank; where they do not lie on whole groups, in their own order, with a scale for each."""
    total = coded.codes.shape[1]
    if (columns.start, columns.stop) == (0, total):
        return coded
    if coded.order is None and columns.start % coded.group == 0 and columns.stop % coded.group == 0:
        return coded.columns(columns.start, columns.stop)
    at = torch.arange(total) if coded.order is None else torch.argsort(coded.order)
    at = at[columns]

    def by_column(values: torch.Tensor | None) -> torch.Tensor | None:
        return None if values is None else values.repeat_interleave(coded.group, 1)[:, :total][:, at]

    scales = by_column(coded.scales)
    assert scales is not None
    return replace(
        coded,
        codes=coded.codes[:, at],
        scales=scales,
        zeros=by_column(coded.zeros),
        mins=by_column(coded.mins),
        group=1,
        order=None,
    )


def read_number(source: WeightSource, name: str, dtype: torch.dtype, format: str) -> float:
    """A tensor of one number. Raises ModelError for another shape, and where it is missing."""
    if not source.has(name) or math.prod(source.shape(name)) != 1:
        raise ModelError(f"Tensor {name} is missing from the checkpoint, or no single number: {format} needs it")
    return read(source, name, dtype).item()


def read(source: WeightSource, name: str, dtype: torch.dtype, index: tuple[slice, ...] = ()) -> torch.Tensor:
    """A tensor, or a part of it, in a dtype of the caller's."""
    shape = source.shape(name)
    sizes = [len(range(size)[part]) for size, part in zip(shape, index, strict=False)]
    into = torch.empty((*sizes, *shape[len(index) :]), dtype=dtype)
    source.read(name, into, index)
    return into


def whole_tensors(source: WeightSource, module: str, needed: tuple[str, ...], name: str) -> bool:
    """Whether a module has all of these tensors; False if it has none of them. Raises ModelError in between."""
    there = [end for end in needed if source.has(f"{module}.{end}")]
    if there and len(there) < len(needed):
        missing = next(end for end in needed if end not in there)
        raise ModelError(
            f"Tensor {module}.{missing} is missing from the checkpoint: the module is stored as {name}, and cannot be "
            "read without it. Fetch the checkpoint again"
        )
    return bool(there)


def check_dims(source: WeightSource, name: str, needed: tuple[int | None, ...], format: str) -> tuple[int, ...]:
    """The shape of a tensor, which must be the needed one, None for any size. Raises ModelError."""
    shape = source.shape(name)
    good = len(shape) == len(needed) and all(want in (None, have) for want, have in zip(needed, shape, strict=True))
    if not good:
        wanted = [("any" if size is None else size) for size in needed]
        raise ModelError(
            f"Tensor {name} has shape {list(shape)}, as {format} it needs [{', '.join(map(str, wanted))}]: its group "
            "size or its bits are not those of the checkpoint's settings"
        )
    return shape


def group_of(name: str, columns: int, groups: int, said: object, format: str) -> int:
    """Columns of a group, from how many groups there are. said: by the settings. Raises ModelError."""
    if isinstance(said, int) and not isinstance(said, bool) and said != 0:
        group = columns if said < 0 or said > columns else said
        if -(-columns // group) != groups:
            raise ModelError(
                f"Tensor {name} has {groups} groups for {columns} columns, but the settings of {format} say groups of "
                f"{said}: one of them is wrong"
            )
        return group
    if groups < 1 or columns % groups:
        raise ModelError(f"Tensor {name} has {groups} groups for {columns} columns, which is no whole number each")
    return columns // groups
