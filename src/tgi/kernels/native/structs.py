"""The structures of csrc/tgi.h in ctypes: one for each operation, with the fields of its dataclass.

A field of an operation is translated by its name and type: `out` and `x` are values and become numbers of buffers, a
`Weight` becomes the handle of its packed layer, a `Vector` the address of its numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import POINTER, Structure, Union, c_float, c_int32, c_int64, c_void_p
from typing import Any, ClassVar

from tgi.kernels import program, recurrence
from tgi.kernels.types import Paging

FUNCTIONS = {
    "silu": 0,
    "gelu": 1,
    "gelu_new": 2,
    "gelu_pytorch_tanh": 2,
    "relu": 3,
    "quick_gelu": 4,
    "relu2": 5,
    "sigmoid": 6,
    "xielu": -1,
}
"""Activation functions, numbered as in csrc/rows.h; one that has parameters is known by them."""
SCORES = {"softmax": 0, "sigmoid": 1, "sparsemixer": 2}
SEES = {"before": 0, "all": 1, "encoder": 2}
"""`program.Sees`, numbered as in csrc/tgi.h."""


def _fields(text: str) -> list[tuple[str, type]]:
    """`int32 code, out; pointer weight` -> what ctypes wants."""
    types = {"int32": c_int32, "float": c_float, "pointer": c_void_p}
    groups = (group.split(maxsplit=1) for group in text.split(";"))
    return [(name.strip(), types[kind]) for kind, names in groups for name in names.split(",")]


class Embed(Structure):
    _fields_ = _fields("int32 code, out; pointer table; int32 by_position, first")


class Add(Structure):
    _fields_ = _fields("int32 code, out, x")


class Scale(Structure):
    _fields_ = _fields("int32 code, out; float factor")


class Clamp(Structure):
    _fields_ = _fields("int32 code, out; float limit")


class SoftCap(Structure):
    _fields_ = _fields("int32 code, out; float cap")


class RmsNorm(Structure):
    _fields_ = _fields("int32 code, out, x, heads, width, offset, each; float eps; pointer weight")


class LayerNorm(Structure):
    _fields_ = _fields("int32 code, out, x, heads, width, offset, each; float eps; pointer weight, bias")


class Linear(Structure):
    _fields_ = _fields("int32 code, out, x, add, first; pointer weight")


class HeadLinear(Structure):
    _fields_ = _fields("int32 code, out, x, heads, stride, rest, tail; pointer weights")


class Rotary(Structure):
    _fields_ = _fields("int32 code, x, heads, head_dim, offset, rope, adjacent")


class Activate(Structure):
    _fields_ = _fields("int32 code, out, x, function; pointer parameters")


class Gate(Structure):
    _fields_ = _fields("int32 code, out, x, function")


class Experts(Structure):
    _fields_ = _fields(
        "int32 code, out, x, router, count, top, function, normalise, shared, scores, groups, top_groups, group_best, "
        "weigh_inputs; float scale, limit, jitter; pointer correction, scales, up, down"
    )


class Multiply(Structure):
    _fields_ = _fields("int32 code, out, x, offset, function")


class Convolve(Structure):
    _fields_ = _fields("int32 code, out, x, kernel, state, at, offset, function; pointer weight, bias")


class Scan(Structure):
    _fields_ = _fields(
        "int32 code, out, x, other, heads, head_dim, state_dim, groups, state, at, offset; float least, most; "
        "pointer log_decay, dt_bias, skip"
    )


class DeltaRule(Structure):
    _fields_ = _fields(
        "int32 code, out, x, other, heads, key_heads, key_dim, value_dim, state, at, offset; pointer log_decay, dt_bias"
    )


class StoreKV(Structure):
    _fields_ = _fields("int32 code, x, layer, kv_heads, head_dim, keys, values")


class Attention(Structure):
    _fields_ = _fields(
        "int32 code, out, x, layer, heads, kv_heads, head_dim, queries, window, sees, furthest; float scale, soft_cap; "
        "pointer slopes, sinks; int32 chunk; pointer bias"
    )


CODES: dict[type, type[Structure]] = {
    program.Embed: Embed,
    program.Add: Add,
    program.Scale: Scale,
    program.Clamp: Clamp,
    program.SoftCap: SoftCap,
    program.RmsNorm: RmsNorm,
    program.LayerNorm: LayerNorm,
    program.Linear: Linear,
    program.HeadLinear: HeadLinear,
    program.Rotary: Rotary,
    program.Activate: Activate,
    program.Gate: Gate,
    program.Experts: Experts,
    program.Multiply: Multiply,
    recurrence.Convolve: Convolve,
    recurrence.Scan: Scan,
    recurrence.DeltaRule: DeltaRule,
    program.StoreKV: StoreKV,
    program.Attention: Attention,
}
"""Operation -> its structure, in the order of the codes of csrc/tgi.h."""
OP_NAMES = [operation.__name__ for operation in CODES]


class AnyOp(Union):
    """`tgi_op`."""

    _fields_: ClassVar = [(structure.__name__.lower(), structure) for structure in CODES.values()]


def op_struct(op: program.Op, convert: Callable[[str, Any], Any], **derived: Any) -> AnyOp:
    """The structure of one operation.

    convert: (field, its value in the operation) -> number or address. derived: fields that only the structure has.
    """
    number = list(CODES).index(type(op))
    structure = list(CODES.values())[number]
    values = {name: getattr(op, name) for name, *_ in structure._fields_ if hasattr(op, name)} | derived
    filled = structure(code=number, **{name: convert(name, value) for name, value in values.items()})
    result = AnyOp()
    setattr(result, structure.__name__.lower(), filled)
    return result


class CacheHeads(Structure):
    """`tgi_cache_heads`: element type and heads of the cache of one layer."""

    _fields_ = _fields("int32 type, kv_heads, head_dim")


class Step(Structure):
    """`tgi_step`."""

    _fields_ = (
        ("rows", c_int32),
        ("sequences", c_int32),
        ("token_ids", c_void_p),
        ("positions", c_void_p),
        ("slots", c_void_p),
        ("query_starts", c_void_p),
        ("block_tables", c_void_p),
        ("table_width", c_int64),
        ("contexts", c_void_p),
        ("encoder_tables", c_void_p),
        ("encoder_width", c_int64),
        ("encoder_contexts", c_void_p),
        ("keys", POINTER(c_void_p)),
        ("values", POINTER(c_void_p)),
        ("cos", POINTER(c_void_p)),
        ("sin", POINTER(c_void_p)),
        ("rotary_half", POINTER(c_int32)),
        ("states", POINTER(c_void_p)),
        ("state_sizes", POINTER(c_int64)),
        ("state_reads", c_void_p),
        ("state_writes", c_void_p),
    )


def step_of(paging: Paging) -> Step:
    """The parts of a step that `paging` holds; it must outlive the step."""
    step = Step(
        rows=len(paging.positions),
        sequences=len(paging.query_lens),
        positions=paging.positions.data_ptr(),
        slots=paging.slots.data_ptr(),
        query_starts=paging.query_starts.data_ptr(),
        block_tables=paging.block_tables.data_ptr(),
        table_width=paging.block_tables.shape[1],
        contexts=paging.contexts.data_ptr(),
        state_reads=None if paging.state_reads is None else paging.state_reads.data_ptr(),
        state_writes=None if paging.state_writes is None else paging.state_writes.data_ptr(),
    )
    if paging.encoder is not None:
        step.encoder_tables = paging.encoder.block_tables.data_ptr()
        step.encoder_width = paging.encoder.block_tables.shape[1]
        step.encoder_contexts = paging.encoder.contexts.data_ptr()
    return step
