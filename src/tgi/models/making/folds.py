"""Where the scales of a matrix's columns can go: into what gives its inputs, so that the model stays what it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tgi.kernels.program import Attention, Gate, LayerNorm, Linear, Op, Program, RmsNorm, StoreKV
from tgi.kernels.weight import Vector, Weight
from tgi.models.loader import Opened
from tgi.models.making.modules import rows_by_module, stored_module


@dataclass(frozen=True, slots=True)
class Fold:
    """What is to be divided by the scales: vectors of a norm, or rows of the matrix before."""

    vectors: tuple[Vector, ...] = ()
    matrix: Weight | None = None
    rows: torch.Tensor | None = None
    """[columns] int64: the row of `matrix` that a column gets its inputs from."""


def find_folds(program: Program) -> dict[Weight, Fold]:
    """Each matrix whose inputs come from one place, and are used nowhere else."""
    ops = program.ops
    found: dict[Weight, Fold] = {}
    for number, op in enumerate(ops):
        if not isinstance(op, Linear) or op.weight.role != "layer" or len(_readers(ops, number, op.x)) != 1:
            continue
        writers = _writers(ops, number, op.x)
        fold = _fold(ops, writers[0], op.weight) if len(writers) == 1 else None
        if fold is not None:
            found[op.weight] = fold
    used = [vector for fold in found.values() for vector in fold.vectors]
    return {weight: fold for weight, fold in found.items() if all(used.count(vector) == 1 for vector in fold.vectors)}


def _fold(ops: tuple[Op, ...], writer: int, weight: Weight) -> Fold | None:
    op = ops[writer]
    if isinstance(op, RmsNorm | LayerNorm) and op.width == weight.columns and op.heads == 1 and op.weight is not None:
        bias = op.bias if isinstance(op, LayerNorm) else None
        vectors = tuple(vector for vector in (op.weight, bias) if vector is not None)
        good = op.out != op.x and all(len(vector.names) == 1 and vector.size == weight.columns for vector in vectors)
        return Fold(vectors) if good else None
    if isinstance(op, Gate):
        before = _only_linear(ops, writer, op.x)
        if before is not None and before.rows == 2 * weight.columns:
            return Fold(matrix=before, rows=weight.columns + torch.arange(weight.columns))
    if isinstance(op, Attention):
        return _of_values(ops, writer, op, weight)
    return None


def _of_values(ops: tuple[Op, ...], number: int, op: Attention, weight: Weight) -> Fold | None:
    stores = [one for one in ops[:number] if isinstance(one, StoreKV) and one.layer == op.layer]
    users = [one for one in ops if isinstance(one, Attention) and one.layer == op.layer]
    if len(stores) != 1 or len(users) != 1 or stores[0].x != op.x or op.heads * op.head_dim != weight.columns:
        return None
    store = stores[0]
    before = _only_linear(ops, number, op.x, apart_from=(store.values, store.kv_heads * store.head_dim))
    if before is None or op.heads % store.kv_heads:
        return None
    columns = torch.arange(weight.columns)
    head = columns // op.head_dim // (op.heads // store.kv_heads)
    return Fold(matrix=before, rows=store.values + head * store.head_dim + columns % op.head_dim)


def _only_linear(ops: tuple[Op, ...], end: int, value: str, apart_from: tuple[int, int] | None = None) -> Weight | None:
    """The matrix that gives a value, if nothing changes that.

    apart_from: (first number, how many): those alone may not be changed.
    """
    linear = None
    for op in ops[:end]:
        if isinstance(op, Linear) and op.out == value:
            linear = None if op.add else op.weight
        elif linear is not None and _changes(op, value):
            offset, heads = getattr(op, "offset", None), getattr(op, "heads", None)
            width = getattr(op, "head_dim", getattr(op, "width", None))
            if apart_from is None or offset is None or heads is None or width is None:
                return None
            first, count = apart_from
            if offset < first + count and first < offset + heads * width:
                return None
    return linear


def _changes(op: Op, value: str) -> bool:
    return getattr(op, "out", None) == value or (type(op).__name__ == "Rotary" and getattr(op, "x", None) == value)


def _writers(ops: tuple[Op, ...], number: int, value: str) -> list[int]:
    """Operations before `number` that the value there comes from: the last that makes it anew, and what changed it."""
    found: list[int] = []
    for at in range(number - 1, -1, -1):
        op = ops[at]
        if _changes(op, value):
            found.append(at)
            if isinstance(op, RmsNorm | LayerNorm | Gate | Attention) and getattr(op, "x", None) != value:
                break
            if isinstance(op, Linear) and not op.add:
                break
    return found


def _readers(ops: tuple[Op, ...], number: int, value: str) -> list[int]:
    """Operations that read the value that is there at `number`."""
    begin = _writers(ops, number, value)
    found = []
    for at in range((begin[0] if begin else 0) + 1, len(ops)):
        op = ops[at]
        if value in (getattr(op, "x", None), getattr(op, "router", None), getattr(op, "other", None)):
            found.append(at)
        if getattr(op, "out", None) == value:
            break
    return found


def folded_tensors(
    it: Opened, fold: Fold, scales: torch.Tensor, written: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What stands in the checkpoint in place of what the scales [columns] go into, by the names in its files.

    written: the tensors of the matrix before, which is in codes.
    """
    found: dict[str, torch.Tensor] = {}
    for vector in fold.vectors:
        name = it.source.stored_name(vector.names[0])
        assert name is not None, "norms are stored"
        values = torch.empty(it.source.shape(vector.names[0]))
        it.source.read(vector.names[0], values)
        changed = (values.flatten() + vector.add) / scales - vector.add
        found[name] = changed.view(values.shape).to(it.source.dtype(vector.names[0]))
    if fold.matrix is None or fold.rows is None:
        return found
    divisors = torch.ones(fold.matrix.rows)
    divisors[fold.rows] = scales
    for module, rows in rows_by_module(fold.matrix).items():
        name = f"{stored_module(it, fold.matrix, module)}.scales"
        found[name] = (written[name].float() / divisors[rows]).half()
        bias = it.source.stored_name(fold.matrix.bias_tensor(module)) if fold.matrix.bias else None
        if bias is not None:
            values = torch.empty(len(rows))
            it.source.read(fold.matrix.bias_tensor(module), values)
            found[bias] = (values / divisors[rows]).to(it.source.dtype(fold.matrix.bias_tensor(module)))
    return found
