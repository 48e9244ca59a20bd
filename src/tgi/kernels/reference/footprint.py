"""Bytes that weights and cache take in the reference backend. Plain arithmetic, without torch."""

from __future__ import annotations

from collections.abc import Mapping

from tgi.kernels.formats import DTYPE_BYTES, CodeFormat
from tgi.kernels.program import Activate, Attention, CacheLayer, Experts, Gate, Op, Program
from tgi.kernels.weight import Weight


def matrix_bytes(weight: Weight, dtype: str, format: CodeFormat | None) -> float:
    """Of a matrix without its bias; codes are dequantised."""
    return weight.rows * weight.columns * DTYPE_BYTES[dtype]


def coded_bytes(weight: Weight, dtype: str, bits: float) -> float:
    """Of a matrix that a checkpoint has in codes, which are dequantised."""
    return matrix_bytes(weight, dtype, None)


def cache_bytes(layer: CacheLayer, dtype: str) -> int:
    """Keys and values of one token. In int8 each has a scale."""
    return layer.stores * layer.kv_heads * (layer.head_dim * DTYPE_BYTES[dtype] + (4 if dtype == "int8" else 0))


def step_bytes(program: Program, tokens: int, dtype: str, *, keys: int) -> int:
    """An upper estimate of what a step of so many rows takes, without its logits.

    keys: of the contexts that one piece of rows sees. The widest moment of a layer is attention (qkv, queries and keys
    rotated in float32, output) or feed-forward (gate and up, activation, product), beside the residual and its norm.
    Freed memory stays with the allocator, in pieces of other sizes: as much again, measured with glibc. To it come
    gathered keys and values and the mask of one piece of rows (bounds of `kernels.reference.attention`). With soft
    caps, sinks and ALiBi the scores are written out: of one key head in a prefill, of all heads in decode, four times
    over (scores, capped or biased, masked, softmax), and keys and values once more in float32.
    """
    width = DTYPE_BYTES[dtype]
    attentions = [op for op in program.all_ops if isinstance(op, Attention)]
    hidden = program.values[program.result]
    widths = {**(program.encoder.values if program.encoder else {}), **program.values}
    widest = max(_scratch(widths, op, width) for op in program.all_ops)
    rows = 2 * tokens * (2 * hidden * width + widest)
    kv_size = max((op.kv_heads * op.head_dim for op in attentions), default=0)
    gathered = 2 * keys * kv_size * width
    piece = 1 << 21
    mask = piece * 5
    written_out = [op for op in attentions if op.slopes or op.bias or op.soft_cap is not None or op.sinks]
    if written_out:
        gathered += 2 * keys * kv_size * 4
        mask += 4 * 4 * max(max(piece * op.heads // op.kv_heads, keys * op.heads) for op in written_out)
    return rows + gathered + mask


def _scratch(widths: Mapping[str, int], op: Op, dtype_bytes: int) -> int:
    """Bytes for each row of the values that an operation holds, without the residual."""
    if isinstance(op, Attention):
        queries, keys = op.heads * op.head_dim, op.kv_heads * op.head_dim
        return 2 * (queries + keys) * dtype_bytes + 4 * 4 * (queries + keys)
    if isinstance(op, Experts):  # rows are gathered for one expert after the other
        return (4 * max(weight.columns for weight in op.down) + 3 * widths[op.out]) * dtype_bytes
    if isinstance(op, Gate | Activate):
        return (4 if isinstance(op, Gate) else 2) * widths[op.out] * dtype_bytes
    return 0
