"""Codes of `--quantize int8` to `int4` as `tgi quantize` stores them, so that a later start only reads.

Settings: `quant_method` "tgi", `scheme` (the value of `--quantize`), `version` 2. A matrix of R rows and C columns has,
in place of its `.weight`, row by row as it is multiplied and rotated as `kernels.rotation` says:

    codes   [R, bytes] uint8   8 bits: a code each. Else the lower 4 bits: code 2 i in the lower half of byte i, 2 i + 1
                               in the upper
    upper   [R, bytes] uint8   5 and 6 bits only: the other 1 or 2 bits, from the lowest of each byte on
    scales  [R, groups]        of 128 columns, float32; of 64 with int5 and int4, bfloat16

Rows end in whole bytes. A weight is scale * (code - 2^(bits - 1)); with int4 scale * the code's value in IQ4_NL's book.
Matrices that share a tensor of the original checkpoint have `NAME.PLACE` for a module: where in that they begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.formats import CodeFormat
from tgi.kernels.weight import StoredRows, Weight, WeightSource
from tgi.quant.formats.base import PIECE_BYTES, WHOLE, Buffer, Shard, check_shape, shares
from tgi.quant.formats.modules import read
from tgi.quant.formats.plain import PIECE_ROWS, Plain
from tgi.quant.scheme import format_of

VERSION = 2
LOWER = 4
"""Bits of a code in `codes`, where it has fewer than 8."""


class Own:
    """See `StoredFormat`."""

    name = "tgi"
    quantised = True
    ignored: tuple[str, ...] = ()

    def __init__(self, settings: Mapping[str, Any]) -> None:
        if settings.get("version") != VERSION:
            raise ModelError(
                f"the checkpoint is of version {settings.get('version')!r} of `tgi quantize`, this server reads "
                f"{VERSION}: quantise the original checkpoint again"
            )
        self._scheme = settings.get("scheme")

    def pieces(
        self, weight: Weight, source: WeightSource, buffer: Buffer, shard: Shard = WHOLE
    ) -> Iterator[tuple[int, torch.Tensor | CodedWeight]]:
        """See `StoredFormat`."""
        format = format_of(weight, self._scheme)
        if format is None:
            yield from Plain().pieces(weight, source, buffer, shard)
            return
        totals = rows_of_modules(weight)
        rows, columns = shares(weight, shard)
        step = max(1, PIECE_BYTES // weight.columns // PIECE_ROWS) * PIECE_ROWS
        for stored in rows:
            check_tensors(source, module_of(weight, stored.name), totals[stored.name], weight.columns, format)
            for begin in range(0, stored.count, step):
                count = min(step, stored.count - begin)
                part = replace(stored, stored=stored.stored + begin * stored.step, count=count)
                piece = _read(weight, source, part, format)
                yield stored.first + begin, _cut(piece, columns, weight)


def rows_of_modules(weight: Weight) -> dict[str, int]:
    """Module of a matrix -> rows of it."""
    return dict(zip(weight.names, (weight.rows,) if len(weight.names) == 1 else weight.parts, strict=True))


def module_of(weight: Weight, name: str) -> str:
    """Where the codes of module `name` stand."""
    return name if weight.within is None else f"{name}.{weight.within.first}"


def shapes_of(rows: int, columns: int, format: CodeFormat) -> dict[str, tuple[int, int]]:
    """Ends of names of the tensors of a matrix -> their shapes."""
    shapes = {"codes": (rows, -(-columns * min(format.bits, 8 if format.bits == 8 else LOWER) // 8))}
    if LOWER < format.bits < 8:
        shapes["upper"] = (rows, -(-columns * (format.bits - LOWER) // 8))
    return shapes | {"scales": (rows, -(-columns // format.columns))}


def check_tensors(source: WeightSource, module: str, rows: int, columns: int, format: CodeFormat) -> None:
    """Raise ModelError unless a module's tensors are there and of the right shapes."""
    for end, shape in shapes_of(rows, columns, format).items():
        check_shape(source, f"{module}.{end}", shape)


def stored_tensors(coded: CodedWeight, format: CodeFormat) -> dict[str, torch.Tensor]:
    """Ends of names -> the tensors of a matrix in codes."""
    codes, scales = coded.codes, coded.scales.to(torch.bfloat16 if format.scales == 2 else torch.float32)
    if format.bits == 8:
        return {"codes": codes, "scales": scales}
    tensors = {"codes": _packed(codes & 15, LOWER)}
    if format.bits > LOWER:
        tensors["upper"] = _packed(codes >> LOWER, format.bits - LOWER)
    return tensors | {"scales": scales}


def _read(weight: Weight, source: WeightSource, stored: StoredRows, format: CodeFormat) -> CodedWeight:
    module, rows = module_of(weight, stored.name), stored.stored_slice
    codes = read(source, f"{module}.codes", torch.uint8, (rows,))
    if format.bits < 8:
        codes = _unpacked(codes, LOWER, weight.columns)
    if LOWER < format.bits < 8:
        upper = read(source, f"{module}.upper", torch.uint8, (rows,))
        codes |= _unpacked(upper, format.bits - LOWER, weight.columns) << LOWER
    scales = read(source, f"{module}.scales", torch.float32, (rows,))
    if format.book is None:
        zeros = torch.full_like(scales, format.zero)
        return CodedWeight(codes, scales, format.columns, zeros, rotated=format.rotated)
    book = torch.tensor(format.book, dtype=torch.float32)
    return CodedWeight(codes, scales, format.columns, codebook=book, rotated=format.rotated)


def _packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """codes [rows, columns] below 2^bits, which divides 8 -> [rows, bytes]"""
    per = 8 // bits
    parts = F.pad(codes, (0, -codes.shape[1] % per)).unflatten(1, (-1, per)).unbind(-1)
    packed = parts[0].clone()
    for number, part in enumerate(parts[1:], 1):
        packed |= part << (bits * number)
    return packed


def _unpacked(packed: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """The reverse."""
    mask, shifts = (1 << bits) - 1, range(0, 8, bits)
    return torch.stack([packed >> shift & mask for shift in shifts], -1).flatten(1)[:, :columns].contiguous()


def _cut(piece: CodedWeight, columns: slice, weight: Weight) -> CodedWeight:
    """The columns of a share. Raises ModelError where rotation mixes them with others."""
    if (columns.start, columns.stop) == (0, weight.columns):
        return piece
    try:
        return piece.columns(columns.start, columns.stop)
    except ValueError as error:
        raise ModelError(f"{weight.names[0]} cannot be shared: {error}") from None
