"""Bytes that weights and cache take in native panels. Plain arithmetic, without the library and without torch."""

from __future__ import annotations

from tgi.kernels.formats import DTYPE_BYTES, CodeFormat
from tgi.kernels.program import CacheLayer
from tgi.kernels.weight import Weight

NARROW_BYTES = 1.51
"""Of a bfloat16 weight in native panels: 12 bits, tables and exceptions. A matrix of which too many weights lie far
from all others keeps 16 bits; only loading can tell."""


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
