"""Matrices that are stacked of several stored ones, q, k and v or gate and up: which of these one layer holds well.

A layer has one order of columns and one width of codes. Parts that agree in these are one layer, others layers of their
own, which write their columns of the same result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from tgi.kernels.coded import CodedWeight
from tgi.kernels.native.eight import group_of
from tgi.kernels.native.linear import PackedLinear
from tgi.kernels.native.stored import Layout, layout_of
from tgi.kernels.program import Linear, Program
from tgi.kernels.types import WeightReader
from tgi.kernels.weight import Weight


@dataclass(frozen=True, slots=True)
class Layers:
    """The matrices of a program in place."""

    of: Mapping[Weight, PackedLinear]
    """Each that is one layer, and each part of the others."""
    parts: Mapping[Weight, tuple[Weight, ...]]
    """Of those that are several layers, from the first row to the last."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a layer of some rows would be."""

    layout: Layout | None = None
    """Of codes; None: of something else."""
    eight: int | None = None
    """Columns that share a scale of 8-bit floats."""
    floats: bool = False

    def joined(self, other: Form) -> Form | None:
        """Of the rows of both in one layer; None where that would be larger than two, or lose codes."""
        if self.layout is None or other.layout is None:
            return self if self == other else None
        merged = self.layout.merged(other.layout)
        if merged is None:
            return None
        kept = {(one.format, one.apart.scale_group, one.apart.minimums) for one in (self.layout, other.layout, merged)}
        return Form(merged) if len(kept) == 1 else None


def separable(program: Program) -> set[Weight]:
    """Matrices that may be several layers: they are multiplied on their own, and stored one by one."""
    every = {op.weight for op in program.all_ops if isinstance(op, Linear)}
    return {weight for weight in every if len(weight.names) > 1}


def parts_of(weight: Weight, weights: WeightReader) -> tuple[Weight, ...]:
    """The stored matrices in runs that can each be one layer, in their order; their first rows decide."""
    each = [
        replace(weight, names=(name,), parts=(rows,)) for name, rows in zip(weight.names, weight.parts, strict=True)
    ]
    forms = [form_of(part, weights) for part in each]
    starts, so_far = [0], forms[0]
    for number, form in enumerate(forms[1:], 1):
        together = so_far.joined(form)
        if together is None:
            starts.append(number)
        so_far = together or form
    if len(starts) == 1:
        return (weight,)
    return tuple(
        replace(weight, names=weight.names[begin:end], parts=weight.parts[begin:end])
        for begin, end in pairwise((*starts, len(each)))
    )


def form_of(weight: Weight, weights: WeightReader) -> Form:
    """Of the first piece of a matrix."""
    _, piece = next(weights.pieces(weight, rounded=False))
    if not isinstance(piece, CodedWeight):
        return Form(floats=True)
    exact = weights.dtype == torch.float32
    return Form(layout_of(piece, weight.columns, exact=exact), None if exact else group_of(piece, weight.columns))
