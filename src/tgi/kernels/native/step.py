"""`NativeStep`: a program in the form of csrc/tgi.h, run in one call a step.

Owns the packed weights, the translation to C structures, and what they point to.
"""

from __future__ import annotations

import ctypes
import weakref
from ctypes import byref, c_double, c_int32, c_void_p
from typing import Any

import torch

from tgi.kernels.native.cache import TYPES
from tgi.kernels.native.library import Arena, Pool
from tgi.kernels.native.loading import load_layers
from tgi.kernels.native.structs import FUNCTIONS, OP_NAMES, SCORES, AnyOp, op_struct, step_of
from tgi.kernels.program import Attention, Experts, HeadLinear, Op, Program, Scale
from tgi.kernels.reference.ops import finish_logits, scale_factor
from tgi.kernels.reference.rope import Angles, Rope
from tgi.kernels.types import KVCache, Paging, WeightReader
from tgi.kernels.weight import Vector, Weight

ANGLES = 4096
"""Positions by which the tables of angles grow."""
POINTERS = ("weight", "bias", "slopes", "parameters", "correction", "sinks")
"""Fields of structures that may be null."""
CPU = torch.device("cpu")


class NativeStep:
    """See `CompiledStep`; hidden states are float32 whatever the weights are."""

    def __init__(self, pool: Pool, arena: Arena, program: Program, weights: WeightReader) -> None:
        self.program, self.pool, self.arena = program, pool, arena
        self.device, self.dtype = CPU, weights.dtype
        self._layers = load_layers(pool, arena, program, weights)
        self._vectors = {vector: weights.vector(vector).float().contiguous() for vector in program.vectors()}
        slopes = {op.slopes for op in program.ops if isinstance(op, Attention) and op.slopes}
        self._slopes = {numbers: torch.tensor(numbers) for numbers in slopes}
        self._ropes = [Rope(spec, CPU) for spec in program.ropes]
        self._buffers = {name: number for number, name in enumerate(program.values)}
        self._kept: list[ctypes.Array] = []  # what the structures point to
        self._ops = (AnyOp * len(program.ops))(*map(self._struct, program.ops))
        self._head = self._layers[program.logits.weight]
        self._width = program.values[program.result]
        self._result = self._buffers[program.result]
        self._handle: int | None = None
        self._cache: KVCache | None = None
        self._positions = 0  # that the tables of angles cover
        self._grow_angles(1)

    @property
    def weight_bytes(self) -> int:
        return self.arena.used

    def forward(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache | None) -> torch.Tensor:
        """See `CompiledStep.forward`; no cache: for programs without attention.

        Raises IndexError, as the reference does, for an id or position without a row in its table.
        """
        if self._handle is None or cache is not self._cache:
            self._bind(cache)
        positions = max(paging.context_lens)
        if positions > self._positions:
            self._grow_angles(positions)
        out = torch.empty((len(token_ids), self._width), dtype=torch.float32)
        step = step_of(paging)
        step.token_ids = token_ids.data_ptr()
        step.keys, step.values = self._keys, self._values
        step.cos, step.sin, step.rotary_half = self._angles
        status = self.pool.library.call.tgi_program_run(self._handle, byref(step), self._result, out.data_ptr())
        if status == 0:
            raise MemoryError("no memory for the buffers of a step")
        if status < 0:
            raise IndexError("a token id or position of the step lies beyond its embedding table")
        return out

    def logits(self, hidden: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        if out is None:
            out = torch.empty((len(hidden), self.program.vocab_size))
        self._head.run(hidden, out)
        return finish_logits(out, self.program.logits)

    def profile(self) -> dict[str, float]:
        """Seconds that one thread has spent in each kind of operation, and waiting, since the first call of this."""
        names = [*OP_NAMES, "waiting"]
        seconds = (c_double * len(names))()
        if self._handle is not None:
            self.pool.library.call.tgi_program_profile(self._handle, seconds)
        return dict(zip(names, seconds, strict=True))

    def _bind(self, cache: KVCache | None) -> None:
        """Create the native program for the element type of this cache."""
        values = self.program.values
        widths = (c_int32 * len(values))(*values.values())
        kind = 0 if cache is None else TYPES[cache.shape.dtype]
        call = self.pool.library.call
        self._handle = call.tgi_program_create(self.pool.handle, self._ops, len(self._ops), widths, len(widths), kind)
        if not self._handle:
            raise MemoryError("no memory for the program of a model")
        weakref.finalize(self, call.tgi_program_destroy, self._handle).atexit = False
        self._cache = cache
        self._keys = pointers(cache.keys) if cache else pointers([])
        self._values = pointers(cache.values) if cache else pointers([])

    def _grow_angles(self, positions: int) -> None:
        """Tables of cos and sin for every position up to the longest context so far."""
        self._positions = min(-(-positions // ANGLES) * ANGLES, max(self.program.max_positions, positions))
        every = torch.arange(self._positions)
        self._tables: list[Angles] = [rope.angles(every) for rope in self._ropes]
        self._tables = [(cos.contiguous(), sin.contiguous()) for cos, sin in self._tables]
        self._angles = (
            pointers([cos for cos, _ in self._tables]),
            pointers([sin for _, sin in self._tables]),
            (c_int32 * len(self._tables))(*(cos.shape[1] for cos, _ in self._tables)),
        )

    def _struct(self, op: Op) -> AnyOp:
        derived: dict[str, Any] = {}
        if isinstance(op, Scale):
            derived["factor"] = scale_factor(op, self.dtype)
        if isinstance(op, Attention):
            derived["slopes"] = self._slopes[op.slopes].data_ptr() if op.slopes else None
        if isinstance(op, Experts):
            derived["up"], derived["down"], derived["count"] = self._handles(op.up), self._handles(op.down), len(op.up)
        if isinstance(op, HeadLinear):
            derived["weights"], derived["heads"] = self._handles(op.weights), len(op.weights)
        return op_struct(op, self._convert, **derived)

    def _handles(self, weights: tuple[Weight, ...]) -> int:
        """The address of an array of layers."""
        handles = (c_void_p * len(weights))(*(self._layers[weight].handle for weight in weights))
        self._kept.append(handles)
        return ctypes.addressof(handles)

    def _convert(self, field: str, value: Any) -> Any:
        if field in ("out", "x", "router"):
            return self._buffers[value]
        if field == "function":
            return FUNCTIONS[value]
        if field == "scores":
            return SCORES[value]
        if isinstance(value, Weight):
            return self._layers[value].handle
        if isinstance(value, Vector):
            return self._vectors[value].data_ptr()
        if value is None:
            return None if field in POINTERS else 0  # no pointer, no window, no cap
        return value


def pointers(tensors: list[torch.Tensor]) -> ctypes.Array:
    return (c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
