"""Bytes that weights and cache take in the reference backend. Plain arithmetic, without torch."""

from __future__ import annotations

from tgi.kernels.formats import DTYPE_BYTES, CodeFormat
from tgi.kernels.program import CacheLayer
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
