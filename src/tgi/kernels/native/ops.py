"""`NativeOps`: a list of operations in the form of csrc/tgi.h, run in one call.

Owns the native program, which has buffers for the values of a step.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from ctypes import byref, c_double, c_int32, c_int64, c_void_p

import torch

from tgi.kernels.native.cache import TYPES, address
from tgi.kernels.native.library import Pool
from tgi.kernels.native.structs import OP_NAMES, AnyOp, Step
from tgi.kernels.types import KVCache


class NativeOps:
    """What the structures point to belongs to the caller."""

    def __init__(self, pool: Pool, ops: Sequence[AnyOp], widths: Sequence[int], result: int) -> None:
        """widths: numbers in a row of each buffer. result: the buffer that `run` gives."""
        self._pool, self._result = pool, result
        self._ops = (AnyOp * len(ops))(*ops)
        self._widths = (c_int32 * len(widths))(*widths)
        self._handle: int | None = None
        self._cache: KVCache | None = None

    def run(self, step: Step, cache: KVCache | None) -> torch.Tensor:
        """All rows of a step, which lacks nothing but the cache -> [rows, width] float32.

        Raises IndexError for an id or position without a row in its table.
        """
        if self._handle is None or cache is not self._cache:
            self._bind(cache)
        step.keys, step.values = self._keys, self._values
        step.states, step.state_sizes = self._states, self._state_sizes
        out = torch.empty((step.rows, self._widths[self._result]), dtype=torch.float32)
        status = self._pool.library.call.tgi_program_run(self._handle, byref(step), self._result, out.data_ptr())
        if status == 0:
            raise MemoryError("no memory for the buffers of a step")
        if status < 0:
            raise IndexError("a token id or position of the step lies beyond its embedding table")
        return out

    def profile(self) -> dict[str, float]:
        """Seconds that one thread has spent in each kind of operation, and waiting, since the first call of this."""
        names = [*OP_NAMES, "waiting"]
        seconds = (c_double * len(names))()
        if self._handle is not None:
            self._pool.library.call.tgi_program_profile(self._handle, seconds)
        return dict(zip(names, seconds, strict=True))

    def _bind(self, cache: KVCache | None) -> None:
        """Create the native program for the element type of this cache."""
        kind = 0 if cache is None else TYPES[cache.shape.dtype]
        call, count = self._pool.library.call, len(self._ops)
        self._handle = call.tgi_program_create(
            self._pool.handle, self._ops, count, self._widths, len(self._widths), kind
        )
        if not self._handle:
            raise MemoryError("no memory for the program of a model")
        weakref.finalize(self, call.tgi_program_destroy, self._handle).atexit = False
        self._cache = cache
        self._keys = addresses(cache.keys if cache else [])
        self._values = addresses(cache.values if cache else [])
        self._states = addresses(cache.states if cache else [])
        sizes = cache.shape.states if cache else ()
        self._state_sizes = (c_int64 * len(sizes))(*sizes)


def pointers(tensors: list[torch.Tensor]) -> ctypes.Array:
    return (c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def addresses(stores: list[torch.Tensor]) -> ctypes.Array:
    """An array of the addresses of a cache's tensors, one a layer; NULL for a tensor that is empty."""
    return (c_void_p * len(stores))(*map(address, stores))
