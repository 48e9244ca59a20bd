"""Codes of a checkpoint in native panels, as they are: which layer can hold them, and packing.

Scales and minimums are kept as the whole numbers and steps that ggml's K-quants have; else in float16 where that loses
no more than one part in 2,000 of the largest in their row, as most checkpoints have them; else in float32. Where
`--dtype` is float32 nothing is rounded, nor are activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from tgi.kernels.coded import STEP_COLUMNS, CodedWeight
from tgi.kernels.formats import CODE_PANELS, GROUP, panel_of
from tgi.kernels.native.book import book_of
from tgi.kernels.native.library import Arena, Pool
from tgi.kernels.native.linear import WHOLE, Apart, PackedLinear
from tgi.kernels.types import WeightReader
from tgi.kernels.weight import Weight

TOLERANCE = 2.0**-11
"""Error of scales that are kept in float16, of the largest in their row."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A layer that can hold some rows of codes."""

    format: str
    group: int
    """Columns of the activations that share a scale."""
    apart: Apart
    floats: str
    """What scales are kept in where they are no longer the whole numbers of the checkpoint."""

    def merged(self, other: Layout) -> Layout | None:
        """One that holds the rows of both; None if there is none."""
        mine, its = self.apart, other.apart
        orders = (mine.order, its.order)
        same_order = orders == (None, None) or (None not in orders and torch.equal(*orders))  # type: ignore[arg-type]
        if mine.book != its.book or not same_order:
            return None
        if mine.scale_group != its.scale_group and 0 in (mine.scale_group, its.scale_group):
            return None
        minimums = mine.minimums or its.minimums
        own = not minimums and (mine.zero_bits or its.zero_bits or mine.zero != its.zero)
        zero_bits = max(each.zero_bits or zero_bits_of(each.zero) for each in (mine, its)) if own else 0
        floats = max(self.floats, other.floats, key=("float16", "float32").index)
        types = {mine.scale_type, its.scale_type}
        whole = types <= set(WHOLE) and mine.minimums == its.minimums
        apart = replace(
            mine,
            scale_group=math.gcd(mine.scale_group, its.scale_group),
            scale_type=max(types, key=WHOLE.index) if whole else floats,
            zero=mine.zero if mine.book is not None or not (own or minimums) else 0,
            zero_bits=zero_bits,
            minimums=minimums,
        )
        group, bits = math.gcd(self.group, other.group), max(CODE_PANELS[each.format].bits for each in (self, other))
        return Layout(panel_of(bits, group).name, group, apart, floats)

    def holds(self, other: Layout) -> bool:
        return (merged := self.merged(other)) is not None and merged.plain == self.plain

    @property
    def plain(self) -> tuple[object, ...]:
        """What tells two of one matrix apart."""
        apart = self.apart
        numbers = (apart.scale_group, apart.scale_type, apart.zero, apart.zero_bits, apart.minimums)
        return (self.format, self.group, *numbers)


def load_stored(pool: Pool, arena: Arena, weight: Weight, weights: WeightReader) -> PackedLinear | None:
    """The matrix with the codes that the checkpoint has, without its bias; None where panels cannot hold all of it.

    A layer is made for what the first rows need, and made anew where later ones need more.
    """
    layout: Layout | None = None
    exact = weights.dtype == torch.float32
    while True:
        layer, wider = None, None
        for first, piece in weights.pieces(weight, rounded=False):
            own = layout_of(piece, weight.columns, exact=exact)
            if own is None:
                return None
            layout = layout or own
            if not layout.holds(own):
                wider = layout.merged(own)
                if wider is None:
                    return None
                break
            layer = layer or _layer(pool, arena, weight, layout, "float32" if exact else weights.activations)
            pack_stored(layer, piece, first)  # type: ignore[arg-type]
        if wider is None:
            return layer
        layout = wider


def layout_of(piece: CodedWeight | torch.Tensor, columns: int, *, exact: bool) -> Layout | None:
    """The smallest layer for some rows; None if there is none. exact: scales must be kept as they are."""
    if not isinstance(piece, CodedWeight) or piece.rotated or (piece.zeros is not None and piece.codebook is not None):
        return None
    whole_row = piece.group >= columns
    if piece.group % 16 and not whole_row:
        return None
    book, most = None, int(piece.codes.max())
    if piece.codebook is not None:
        book = book_of(piece.codebook)
        if book is None or most >= len(piece.codebook) or (exact and not book.exact):
            return None
    part = GROUP if whole_row else math.gcd(piece.group, GROUP)
    panel = panel_of(most.bit_length() if book is None else 4, part)
    scales, minimums = scales_of(piece)
    numbers = (scales,) if minimums is None else (scales, minimums)
    floats = "float32" if exact or not all(map(fits_float16, numbers)) else "float16"
    points = None if piece.zeros is None or minimums is not None else piece.zeros
    first = 0 if points is None else int(points.flatten()[0])
    zero_bits = 0 if points is None or bool((points == first).all()) else zero_bits_of(int(points.max()))
    zero = 128 if book is not None else 0 if zero_bits else first
    apart = Apart(
        0 if whole_row else piece.group,
        whole_type(piece) or floats,
        zero,
        zero_bits,
        minimums is not None,
        None if book is None else book.values,
        piece.order,
    )
    return Layout(panel.name, part, apart, floats)


def zero_bits_of(largest: int) -> int:
    """Bits that keep zero points up to `largest`."""
    return 4 if largest < 16 else 8


def whole_type(piece: CodedWeight) -> str | None:
    """What keeps scales and minimums as the whole numbers that they are in the checkpoint; None where they are none."""
    book = None if piece.codebook is None else book_of(piece.codebook)
    if piece.steps is None or STEP_COLUMNS % piece.group or (book is not None and book.factor != 1.0):
        return None
    if piece.mins is None:
        return "int8" if piece.min_steps is None else None
    if piece.min_steps is None or piece.zeros is not None:
        return None
    small = _nibbles(piece.scales, piece.steps, piece.group) and _nibbles(-piece.mins, piece.min_steps, piece.group)
    return "nibbles" if small else "int8"


def _nibbles(numbers: torch.Tensor, steps: torch.Tensor, group: int) -> bool:
    """Whether numbers [rows, groups] are 0 to 15 times their steps [rows, blocks]."""
    each = steps.float().repeat_interleave(STEP_COLUMNS // group, 1)[:, : numbers.shape[1]]
    whole = torch.where(each != 0, numbers.float() / each, 0).round()
    return bool(((whole >= 0) & (whole <= 15)).all())


def fits_float16(numbers: torch.Tensor) -> bool:
    """Whether float16 keeps numbers [rows, groups] to `TOLERANCE`."""
    errors = (numbers.half().float() - numbers).abs().amax(1)
    return bool((errors <= numbers.abs().amax(1) * TOLERANCE).all())


def scales_of(piece: CodedWeight) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scales and minimums as layers take them: of a book's codes, and with zero points that are no small whole numbers
    made part of the minimums."""
    scales = piece.scales.float()
    if piece.codebook is not None and (book := book_of(piece.codebook)) is not None:
        scales = scales * book.factor
    minimums = None if piece.mins is None else piece.mins.float()
    if piece.zeros is None:
        return scales, minimums
    zeros = piece.zeros.float()
    whole = bool(((zeros == zeros.round()) & (zeros >= 0) & (zeros <= 255)).all())
    if whole and minimums is None:
        return scales, None
    moved = -scales * zeros
    return scales, moved if minimums is None else minimums + moved


def pack_stored(layer: PackedLinear, piece: CodedWeight, first: int) -> None:
    """Pack rows first ... of a layer that can hold them."""
    apart = layer.apart
    assert apart is not None, "a layer for codes of a checkpoint"
    scales, minimums = scales_of(piece)
    if apart.minimums and minimums is None:
        minimums = torch.zeros_like(scales) if piece.zeros is None else -scales * piece.zeros.float()
    zeros = None
    if apart.zero_bits:
        zeros = torch.zeros_like(scales) if piece.zeros is None or apart.minimums else piece.zeros
    if apart.scale_group and (times := piece.group // apart.scale_group) > 1:
        count = -(-layer.in_features // apart.scale_group)

        def repeated(part: torch.Tensor) -> torch.Tensor:
            return part.repeat_interleave(times, 1)[:, :count]

        scales = repeated(scales)
        zeros, minimums = (None if part is None else repeated(part) for part in (zeros, minimums))
    steps = (piece.steps, piece.min_steps) if apart.scale_type in WHOLE else (None, None)
    layer.pack_codes(piece.codes, scales, zeros, minimums, first=first, steps=steps[0], min_steps=steps[1])


def _layer(pool: Pool, arena: Arena, weight: Weight, layout: Layout, activations: str) -> PackedLinear:
    return PackedLinear(
        pool,
        arena,
        layout.format,
        weight.columns,
        weight.rows,
        group=layout.group,
        bias=weight.bias,
        activations=activations,
        apart=layout.apart,
    )
