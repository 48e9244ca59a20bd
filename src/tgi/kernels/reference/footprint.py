"""Bytes that weights and cache take in the reference backend. Plain arithmetic, without torch."""

from __future__ import annotations

from tgi.kernels.formats import CodeFormat
from tgi.kernels.program import CacheLayer
from tgi.kernels.weight import Weight


def matrix_bytes(weight: Weight, dtype: str, dtype_bytes: int, format: CodeFormat | None) -> float:
    """Of a matrix without its bias; codes are dequantised."""
    return weight.rows * weight.columns * dtype_bytes


def cache_bytes(layer: CacheLayer, dtype: str, dtype_bytes: int) -> int:
    """Keys and values of one token."""
    return 2 * layer.kv_heads * layer.head_dim * dtype_bytes
