"""Fusion: a product that is only added to the residual goes there directly. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace

from tgi.kernels.program import Add, Linear, Op, Program


def fuse_sums(program: Program) -> Program:
    """`Linear(t, x, w)` directly followed by `Add(y, t)` becomes `Linear(y, x, w, add=True)`; unused values go.

    The builder writes each product's value for this one use, so nobody reads it afterwards.
    """
    encoder = program.encoder
    if encoder is not None:
        ops, values = _fused(encoder.ops, encoder.values)
        encoder = replace(encoder, ops=ops, values=values)
    ops, values = _fused(program.ops, program.values)
    return replace(program, ops=ops, values=values, encoder=encoder)


def fuse_ops(before: Iterable[Op]) -> tuple[Op, ...]:
    """The same of operations that follow each other."""
    ops: list[Op] = []
    for op in before:
        last = ops[-1] if ops else None
        if isinstance(op, Add) and isinstance(last, Linear) and not last.add and last.out == op.x:
            ops[-1] = replace(last, out=op.out, add=True)
        else:
            ops.append(op)
    return tuple(ops)


def _fused(before: tuple[Op, ...], values: Mapping[str, int]) -> tuple[tuple[Op, ...], dict[str, int]]:
    ops = fuse_ops(before)
    names = ("out", "x", "router", "other")
    used = {getattr(op, field.name) for op in ops for field in fields(op) if field.name in names}
    return ops, {name: width for name, width in values.items() if name in used}
