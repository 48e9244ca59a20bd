"""Which backend's arithmetic of memory holds for a device. Imports no torch, so that a plan can be made without it."""

from __future__ import annotations

from typing import Protocol

from tgi.kernels.formats import CodeFormat
from tgi.kernels.native import footprint as native
from tgi.kernels.program import CacheLayer, Program
from tgi.kernels.reference import footprint as reference
from tgi.kernels.weight import Weight


class Footprint(Protocol):
    """How a backend keeps weights and cache, in bytes."""

    def matrix_bytes(self, weight: Weight, dtype: str, format: CodeFormat | None) -> float:
        """Of a matrix without its bias; format: of the codes it is kept in, None for floats of `dtype`."""
        ...

    def coded_bytes(self, weight: Weight, dtype: str, bits: float) -> float:
        """The same of one that a checkpoint has in codes of so many bits, with their scales."""
        ...

    def cache_bytes(self, layer: CacheLayer, dtype: str) -> int:
        """Of the keys and values of one token in one layer."""
        ...

    def step_bytes(self, program: Program, tokens: int, dtype: str, *, keys: int) -> int:
        """Of what a step of so many rows takes beside weights, cache and logits; keys: of the contexts of its rows."""
        ...


def footprint(device: str, *, native_kernels: bool) -> Footprint:
    """Of the backend that will serve `device` where the native kernels are built."""
    return native if device == "cpu" and native_kernels else reference
