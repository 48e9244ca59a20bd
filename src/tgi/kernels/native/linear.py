"""`PackedLinear`: the weights of one linear layer in native memory.

Owns the calls that pack and multiply. Filled row by row while a checkpoint is read, so that no second copy of a
matrix exists.
"""

from __future__ import annotations

from ctypes import byref

import torch

from tgi.kernels.coded import CodedWeight
from tgi.kernels.formats import CODE_FORMATS, GROUP
from tgi.kernels.native.library import Arena, Feedback, LinearShape, Pool
from tgi.kernels.rotation import ROTATION

FORMATS = ("float32", "bfloat16", "float16", *CODE_FORMATS)
"""Of weights, by name."""
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


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
        zero_points: bool = False,
        rotated: bool = False,
        bias: bool = False,
        activations: str = "int8",
    ) -> None:
        """format: one of FORMATS. group: 0 for the whole row. activations: int8, or float32: leave them unrounded.

        rotated: weights are kept in codes of their rotation, see `kernels.rotation`.
        """
        assert group == GROUP or format not in CODE_FORMATS or CODE_FORMATS[format].scales == 1, "halves of 128 columns"
        assert not rotated or (format in CODE_FORMATS and group % ROTATION == 0), "whole blocks to a group"
        self.pool, self.arena, self.format, self.activations = pool, arena, format, activations
        self.in_features, self.out_features, self.has_bias = in_features, out_features, bias
        self.group, self.rotated, self.zero_points = group, rotated, zero_points
        self._call = pool.library.call
        number, rounding = (self._call.tgi_format(name.encode()) for name in (format, activations))
        shape = LinearShape(number, in_features, out_features, group, zero_points, rotated, rounding, bias)
        self.handle = self._call.tgi_linear_create(arena.handle, byref(shape))
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
        kind, strides = TYPES[weight.dtype], weight.stride()
        inputs = None if feedback is None else byref(feedback)
        self._call.tgi_linear_pack(
            self.pool.handle, self.handle, weight.data_ptr(), kind, *strides, first, len(weight), inputs
        )

    def pack_codes(
        self, codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None = None, first: int = 0
    ) -> None:
        """Pack rows from unsigned `codes` [rows, in], `scales` and `zeros` [rows, groups]: scale * (code - zero).

        Of a rotated layer, those of the rotated weights.
        """
        codes, scales = codes.to(torch.uint8).contiguous(), scales.float().contiguous()
        zeros = None if zeros is None else zeros.to(torch.uint8).contiguous()
        pointer = 0 if zeros is None else zeros.data_ptr()
        self._call.tgi_linear_pack_codes(
            self.pool.handle, self.handle, codes.data_ptr(), scales.data_ptr(), pointer, first, len(codes)
        )

    def coded(self, first: int, count: int) -> CodedWeight:
        """Rows first ... first + count - 1 of a layer of codes as they are kept, which `pack_codes` takes."""
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
