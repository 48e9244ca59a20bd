"""`NativeProgram`: a `Program` in the form of csrc/tgi.h, run in one call a step.

Owns the translation to C structures and keeps alive what they point to. Called by `models.compiled`, and
by tests with lists of a single operation.
"""

from __future__ import annotations

import ctypes
import weakref
from ctypes import POINTER, Structure, byref, c_double, c_float, c_int32, c_int64, c_void_p

import torch

from tgi.kernels.native.cache import AttentionShape, attention_shape
from tgi.kernels.native.library import Pool
from tgi.kernels.native.linear import PackedLinear
from tgi.kernels.ops import KVCache, Paging
from tgi.kernels.program import Code, Operation, Program, Tables


class _Operation(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("code", "input", "output", "width", "a", "b", "c", "d")),
        ("x", c_float),
        ("y", c_float),
        ("weight", c_void_p),
        ("bias", c_void_p),
    )


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
        ("keys", POINTER(c_void_p)),
        ("values", POINTER(c_void_p)),
        ("cos", POINTER(c_void_p)),
        ("sin", POINTER(c_void_p)),
        ("rotary_half", POINTER(c_int32)),
    )


def step_of(paging: Paging) -> Step:
    """The parts of a step that `paging` holds; it must outlive the step."""
    return Step(
        rows=len(paging.positions),
        sequences=len(paging.query_lens),
        positions=paging.positions.data_ptr(),
        slots=paging.slots.data_ptr(),
        query_starts=paging.query_starts.data_ptr(),
        block_tables=paging.block_tables.data_ptr(),
        table_width=paging.block_tables.shape[1],
    )


def pointers(tensors: list[torch.Tensor]) -> ctypes.Array:
    return (c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


class NativeProgram:
    """Runs a program on a pool."""

    def __init__(self, pool: Pool, program: Program) -> None:
        self.pool, self.program = pool, program
        self._keep: list[object] = []
        self._cache: KVCache | None = None
        self._tables: Tables | None = None
        operations = (_Operation * len(program.operations))(*map(self._operation, program.operations))
        widths = (c_int32 * len(program.widths))(*program.widths)
        shape = AttentionShape(0, program.heads, program.kv_heads, program.head_dim)
        self._create = (operations, len(program.operations), widths, len(program.widths), shape)
        self._handle: int | None = None

    def __call__(
        self, token_ids: torch.Tensor, paging: Paging, cache: KVCache | None, tables: Tables = ()
    ) -> torch.Tensor:
        """token_ids [tokens] int64 -> the result buffer [tokens, width] float32

        Raises IndexError, as the reference does, for an id or position without a row in its table.
        tables: looked at only when they are another object than in the call before, so not to be changed in place.
        """
        if self._handle is None or cache is not self._cache:
            self._bind(cache)
        call = self.pool.library.call
        out = torch.empty((len(token_ids), self.program.widths[self.program.result]), dtype=torch.float32)
        step = step_of(paging)
        step.token_ids = token_ids.data_ptr()
        step.keys, step.values = self._keys, self._values
        if tables is not self._tables:
            self._tables = tables
            self._angles = (
                pointers([cos for cos, _ in tables]),
                pointers([sin for _, sin in tables]),
                (c_int32 * len(tables))(*(cos.shape[1] for cos, _ in tables)),
            )
        step.cos, step.sin, step.rotary_half = self._angles
        status = call.tgi_program_run(self._handle, byref(step), self.program.result, out.data_ptr())
        if status == 0:
            raise MemoryError("no memory for the buffers of a step")
        if status < 0:
            raise IndexError("a token id or position of the step lies beyond its embedding table")
        return out

    def profile(self) -> dict[str, float]:
        """Seconds that one thread has spent in each kind of operation, and waiting, since the first call of this."""
        names = [code.name.lower() for code in Code] + ["waiting"]
        seconds = (c_double * len(names))()
        if self._handle is not None:
            self.pool.library.call.tgi_program_profile(self._handle, seconds)
        return dict(zip(names, seconds, strict=True))

    def _bind(self, cache: KVCache | None) -> None:
        """Create the native program for the element type of this cache."""
        operations, count, widths, buffers, shape = self._create
        if cache is not None:
            shape = attention_shape(cache.shape, self.program.heads)
        call = self.pool.library.call
        self._handle = call.tgi_program_create(self.pool.handle, operations, count, widths, buffers, byref(shape))
        if not self._handle:
            raise MemoryError("no memory for the program of a model")
        weakref.finalize(self, call.tgi_program_destroy, self._handle).atexit = False
        self._cache = cache
        self._keys = pointers(cache.keys) if cache else pointers([])
        self._values = pointers(cache.values) if cache else pointers([])

    def _operation(self, operation: Operation) -> _Operation:
        return _Operation(
            operation.code,
            operation.input,
            operation.output,
            operation.width,
            operation.a,
            operation.b,
            operation.c,
            operation.d,
            operation.x,
            operation.y,
            self._pointer(operation.weight),
            self._pointer(operation.bias),
        )

    def _pointer(self, weight: PackedLinear | torch.Tensor | None) -> int | None:
        if weight is None:
            return None
        if isinstance(weight, PackedLinear):
            self._keep.append(weight)
            return weight.handle
        tensor = weight.float().contiguous()
        self._keep.append(tensor)
        return tensor.data_ptr()
