"""`PackedLinear`: the weights of one linear layer in native memory.

Owns the calls that pack and multiply. Filled row by row while a checkpoint is read, so that no second copy of a
matrix exists.
"""

from __future__ import annotations

from ctypes import byref, pointer
from dataclasses import dataclass

import torch

from tgi.kernels.coded import CodedWeight
from tgi.kernels.formats import CODE_FORMATS, CODE_PANELS, GROUP
from tgi.kernels.native.library import Arena, Feedback, LinearApart, LinearShape, Pool
from tgi.kernels.rotation import ROTATION

FORMATS = ("float32", "bfloat16", "float16", *CODE_FORMATS)
"""Of weights that are made of floats, by name; besides there is e4m3, which only takes codes."""
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
SCALE_TYPES = {"float32": 0, "float16": 2, "int8": 3, "nibbles": 102}
"""Of `Apart`; see `tgi_linear_apart` in csrc/tgi.h."""
WHOLE = ("nibbles", "int8")
"""Of these the ones that keep whole numbers, the smallest first."""


@dataclass(frozen=True, slots=True)
class Apart:
    """Codes of a checkpoint, whose scales lie apart from them: scale * (value of the code - zero) + minimum."""

    scale_group: int
    """Columns of a scale, a multiple of the layer's group; 0: the whole row."""
    scale_type: str = "float32"
    """Or float16, or int8: whole numbers times a float16 for each 256 columns, of minimums too; or nibbles: the same
    where scales are from 0 to 15 and minimums, which there are, from -15 to 0."""
    zero: int = 0
    """Of all codes, where groups have no zero points of their own."""
    zero_bits: int = 0
    """Of each such zero point, 4 or 8."""
    minimums: bool = False
    book: tuple[int, ...] | None = None
    """Values of 16 codes from 0 to 255, from which `zero` is taken; None: the code."""
    order: torch.Tensor | None = None
    """See `CodedWeight.order`."""

    def structure(self) -> tuple[LinearApart, object]:
        """As C takes it, and what must live as long as the call."""
        book = None if self.book is None else torch.tensor(self.book, dtype=torch.uint8)
        order = None if self.order is None else self.order.int().contiguous()
        pointers = (None if part is None else part.data_ptr() for part in (book, order))
        kind = SCALE_TYPES[self.scale_type]
        numbers = (self.scale_group, kind, self.zero, self.zero_bits, self.minimums)
        return LinearApart(*numbers, *pointers), (book, order)


class PackedLinear:
    """y = x W^T + bias on packed weights. Calls from several threads take turns."""

    def __init__(
        self,
        pool: Pool,
        arena: Arena,
        format: str,
        in_features: int,
        out_features: int,
        *,
        group: int = GROUP,
        rotated: bool = False,
        bias: bool = False,
        activations: str = "int8",
        apart: Apart | None = None,
    ) -> None:
        """format: one of FORMATS, or e4m3; with `apart` one of CODE_PANELS. group: 0 for the whole row. activations:
        int8, or float32: left unrounded.

        rotated: weights are kept in codes of their rotation, see `kernels.rotation`. apart: of a layer that takes codes
        of a checkpoint; group is then that of the activations, and of the weights what `apart` says.
        """
        halves = format in CODE_FORMATS and CODE_FORMATS[format].scales > 1
        assert group == GROUP or not halves or apart is not None, "halves of 128 columns"
        assert apart is None or not rotated, "columns of a checkpoint are not rotated"
        assert apart is not None or format in (*FORMATS, "e4m3"), "nothing is rounded to fewer bits"
        assert apart is None or format in CODE_PANELS, "codes of a checkpoint"
        assert not rotated or (format in CODE_FORMATS and group % ROTATION == 0), "whole blocks to a group"
        self.pool, self.arena, self.format, self.activations = pool, arena, format, activations
        self.in_features, self.out_features, self.has_bias = in_features, out_features, bias
        self.group, self.rotated, self.apart = group, rotated, apart
        self._call = pool.library.call
        number, rounding = (self._call.tgi_format(name.encode()) for name in (format, activations))
        shape = LinearShape(number, in_features, out_features, group, rotated, rounding, bias)
        alive = None
        if apart is not None:
            structure, alive = apart.structure()
            shape.apart = pointer(structure)
        self.handle = self._call.tgi_linear_create(arena.handle, byref(shape))
        del alive
        if not self.handle:
            raise MemoryError(f"no memory for a {format} layer of {out_features} x {in_features}")

    @property
    def bytes(self) -> int:
        """Of the packed weights, scales included."""
        return self._call.tgi_linear_bytes(self.handle)

    def pack(self, weight: torch.Tensor, first: int = 0, feedback: Feedback | None = None) -> None:
        """Pack rows first ... of the layer from `weight` [rows, in], of any strides and float dtype.

        feedback: of a layer of codes; its errors are added to.
        """
        assert weight.shape[1] == self.in_features and first + len(weight) <= self.out_features
        assert self.apart is None, "floats are not rounded into a checkpoint's codes"
        kind, strides = TYPES[weight.dtype], weight.stride()
        inputs = None if feedback is None else byref(feedback)
        self._call.tgi_linear_pack(
            self.pool.handle, self.handle, weight.data_ptr(), kind, *strides, first, len(weight), inputs
        )

    def pack_codes(
        self,
        codes: torch.Tensor,
        scales: torch.Tensor,
        zeros: torch.Tensor | None = None,
        minimums: torch.Tensor | None = None,
        *,
        first: int = 0,
        steps: torch.Tensor | None = None,
        min_steps: torch.Tensor | None = None,
    ) -> None:
        """Pack rows from unsigned `codes` [rows, in] and `scales` [rows, groups]: see `tgi_linear_pack_codes`.

        zeros and minimums [rows, groups], where the layer has them. steps and min_steps [rows, blocks]: what scales and
        minimums are multiples of, of a layer that keeps whole numbers. Of a rotated layer, of the rotated weights.
        """
        if self.apart is None and zeros is not None:
            assert bool((zeros == CODE_FORMATS[self.format].zero).all()), "no zero points but the format's"
            zeros = None
        wanted = (self.apart is not None and self.apart.zero_bits > 0, self.apart is not None and self.apart.minimums)
        assert (zeros is not None, minimums is not None) == wanted, "as the layer was made"
        assert codes.shape[1] == self.in_features and first + len(codes) <= self.out_features
        codes, scales = codes.to(torch.uint8).contiguous(), scales.float().contiguous()
        zeros = None if zeros is None else zeros.to(torch.uint8).contiguous()
        minimums = None if minimums is None else minimums.float().contiguous()
        steps, min_steps = (None if part is None else part.float().contiguous() for part in (steps, min_steps))
        whole = self.apart is not None and self.apart.scale_type in WHOLE
        assert (steps is not None) == whole, "as the layer was made"
        more = (None if part is None else part.data_ptr() for part in (zeros, minimums, steps, min_steps))
        self._call.tgi_linear_pack_codes(
            self.pool.handle, self.handle, codes.data_ptr(), scales.data_ptr(), *more, first, len(codes)
        )

    def coded(self, first: int, count: int) -> CodedWeight:
        """Rows first ... first + count - 1 of a layer of codes as they are kept, which `pack_codes` takes."""
        assert self.apart is None, "a checkpoint's codes are in the checkpoint"
        format = CODE_FORMATS[self.format]
        part = (self.group or self.in_features) // format.scales
        codes = torch.empty((count, self.in_features), dtype=torch.uint8)
        scales = torch.empty((count, -(-self.in_features // part)))
        zeros = torch.empty(scales.shape, dtype=torch.uint8) if format.book is None and format.scales == 1 else None
        pointer = 0 if zeros is None else zeros.data_ptr()
        self._call.tgi_linear_codes(
            self.pool.handle, self.handle, codes.data_ptr(), scales.data_ptr(), pointer, first, count
        )
        if format.book is None:
            zeros = torch.full_like(scales, format.zero) if zeros is None else zeros.float()
        book = None if format.book is None else torch.tensor(format.book, dtype=torch.float32)
        return CodedWeight(codes, scales, part, zeros, codebook=book, rotated=self.rotated)

    def set_bias(self, bias: torch.Tensor, first: int = 0) -> None:
        """bias [count] of rows first ..."""
        bias = bias.float().contiguous()
        self._call.tgi_linear_set_bias(self.handle, bias.data_ptr(), first, len(bias))

    def finish(self) -> None:
        """To be called when all rows are packed: bfloat16 weights are kept in 12 bits where that loses nothing."""
        if not self._call.tgi_linear_finish(self.pool.handle, self.arena.handle, self.handle):
            raise MemoryError(f"no memory for a {self.format} layer of {self.out_features} x {self.in_features}")

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """The weights of rows `ids` [count] int64 as they are after rounding, [count, in] float32.

        Raises IndexError, as the reference does, for an id that has no row.
        """
        ids = ids.contiguous()
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.out_features:
            raise IndexError(f"an id lies beyond the table's {self.out_features} rows")
        out = torch.empty((len(ids), self.in_features), dtype=torch.float32)
        self._call.tgi_linear_rows(self.pool.handle, self.handle, ids.data_ptr(), len(ids), out.data_ptr())
        return out

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [tokens, in] of any float dtype -> [tokens, out] in the same"""
        out = torch.empty((len(x), self.out_features), dtype=torch.float32)
        self.run(x, out)
        return out.to(x.dtype)

    def run(self, x: torch.Tensor, out: torch.Tensor) -> None:
        """x [tokens, in] of any float dtype; the result is written to out [tokens, out] float32, contiguous."""
        rows = x.to(torch.float32).contiguous()
        self._call.tgi_linear_run(self.pool.handle, self.handle, rows.data_ptr(), len(rows), out.data_ptr(), 0)
