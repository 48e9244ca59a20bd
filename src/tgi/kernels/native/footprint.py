"""Bytes that weights and cache take in native panels. Plain arithmetic, without the library and without torch."""

from __future__ import annotations

from tgi.kernels.formats import DTYPE_BYTES, CodeFormat
from tgi.kernels.program import Attention, CacheLayer, Encoder, Experts, Program
from tgi.kernels.weight import Weight

NARROW_BYTES = 1.51
"""Of a bfloat16 weight in native panels: 12 bits, tables and exceptions. A matrix of which too many weights lie far
from all others keeps 16 bits; only loading can tell."""
SLICE_ROWS = 256
"""Rows of a step that are computed together, as csrc/program.h has it."""
THREADS_BYTES = 16 << 20
"""Of what threads keep for their pieces of attention and of weights that are widened, and of tables of angles."""


def matrix_bytes(weight: Weight, dtype: str, format: CodeFormat | None) -> float:
    """Of a matrix without its bias."""
    if format is not None:
        return format.packed_bytes(weight.rows, weight.columns)
    return weight.rows * weight.columns * (NARROW_BYTES if dtype == "bfloat16" else DTYPE_BYTES[dtype])


def coded_bytes(weight: Weight, dtype: str, bits: float) -> float:
    """Of a matrix that a checkpoint has in codes: as they are, but rows padded."""
    return -(-weight.rows // 16) * 16 * weight.columns * bits / 8


def cache_bytes(layer: CacheLayer, dtype: str) -> int:
    """Keys and values of one token. In int8 each has a scale, and heads are padded to 16 numbers."""
    if dtype == "int8":
        return layer.stores * layer.kv_heads * (-(-layer.head_dim // 16) * 16 + 4)
    return layer.stores * layer.kv_heads * layer.head_dim * DTYPE_BYTES[dtype]


def step_bytes(program: Program, tokens: int, dtype: str, *, keys: int) -> int:
    """What a step of so many rows takes, without its logits: the values of one slice of rows after the other, and of
    all rows the hidden states. dtype: of the weights; all values are float32. keys: of the contexts, which are read
    where they lie."""
    buffers = [_values_bytes(program, tokens)]
    if program.encoder is not None:
        buffers.append(_values_bytes(program.encoder, tokens))
    return sum(buffers) + 2 * 4 * tokens * program.values[program.result] + THREADS_BYTES


def _values_bytes(program: Program | Encoder, tokens: int) -> int:
    """Of the values of one slice, what is gathered for experts, and the widest in packed form."""
    whole = any(isinstance(op, Attention) and op.sees == "all" for op in program.ops)
    rows = max(tokens, SLICE_ROWS) if whole else SLICE_ROWS
    widest = max(program.values.values())
    for op in program.ops:
        if isinstance(op, Experts):
            widest = max(widest, *(weight.columns for weight in (*op.up, *op.down)))
    gathered = max((_gathered(op) for op in program.ops if isinstance(op, Experts)), default=0)
    return 4 * rows * (sum(program.values.values()) + gathered + widest)


def _gathered(op: Experts) -> int:
    """Numbers for each row: its input, both products and what is between them."""
    widest_up, widest_down = max(one.rows for one in op.up), max(one.columns for one in op.down)
    return op.up[0].columns + widest_up + widest_down + op.down[0].rows
