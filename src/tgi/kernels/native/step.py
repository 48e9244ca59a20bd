"""`NativeStep`: a program in the form of csrc/tgi.h, run in one call a step.

Owns the packed weights, the translation to C structures, and what they point to. An encoder is a second list of
operations (`native.ops`) over the same weights.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from ctypes import c_int32, c_void_p
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from tgi.kernels.native.library import Arena, Pool
from tgi.kernels.native.linear import PackedLinear
from tgi.kernels.native.loading import load_layers
from tgi.kernels.native.ops import NativeOps, pointers
from tgi.kernels.native.structs import FUNCTIONS, SCORES, SEES, AnyOp, op_struct, step_of
from tgi.kernels.program import Attention, Encoder, Experts, HeadLinear, Linear, Op, Program, RelativeBias, Scale
from tgi.kernels.recurrence import Convolve
from tgi.kernels.reference.ops import finish_logits, scale_factor
from tgi.kernels.reference.rope import Angles, Rope
from tgi.kernels.reference.whole import by_distance
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
        loaded = load_layers(pool, arena, program, weights)
        self._layers, self._parts = loaded.of, loaded.parts
        self._vectors = {vector: weights.vector(vector).float().contiguous() for vector in program.vectors()}
        attentions = [op for op in program.all_ops if isinstance(op, Attention)]
        self._slopes = {op.slopes: torch.tensor(op.slopes) for op in attentions if op.slopes}
        self._biases = {op.bias: self._by_distance(op.bias) for op in attentions if op.bias}
        self._ropes = [Rope(spec, CPU) for spec in program.ropes]
        self._kept: list[ctypes.Array] = []  # what the structures point to
        self._taps: list[torch.Tensor] = []  # the same
        self._decoder = self._listed(program)
        self._encoder = None if program.encoder is None else self._listed(program.encoder)
        self._head = self._layers[program.logits.weight]
        self._positions = 0  # that the tables of angles cover
        self._grow_angles(1)

    @property
    def layers(self) -> Mapping[Weight, PackedLinear]:
        """The matrices in place; of those that are several layers, the parts."""
        return self._layers

    @property
    def weight_bytes(self) -> int:
        return self.arena.used

    @property
    def hidden_size(self) -> int:
        return self.program.values[self.program.result]

    def forward(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache | None) -> torch.Tensor:
        """See `CompiledStep.forward`; no cache: for programs without attention.

        Raises IndexError, as the reference does, for an id or position without a row in its table.
        """
        return self._run(self._decoder, token_ids, paging, cache)

    def encode(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache) -> None:
        """See `CompiledStep.encode`; raises as `forward`."""
        assert self._encoder is not None
        self._run(self._encoder, token_ids, paging, cache)

    def _run(self, ops: NativeOps, token_ids: torch.Tensor, paging: Paging, cache: KVCache | None) -> torch.Tensor:
        positions = max(paging.context_lens)
        if positions > self._positions:
            self._grow_angles(positions)
        step = step_of(paging)
        step.token_ids = token_ids.data_ptr()
        step.cos, step.sin, step.rotary_half = self._angles
        return ops.run(step, cache)

    def logits(self, hidden: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        if out is None:
            out = torch.empty((len(hidden), self.program.vocab_size))
        self._head.run(hidden, out)
        return finish_logits(out, self.program.logits)

    def profile(self) -> dict[str, float]:
        """Seconds that one thread has spent in each kind of operation, and waiting, since the first call of this."""
        parts = [ops.profile() for ops in (self._decoder, self._encoder) if ops is not None]
        return {name: sum(part[name] for part in parts) for name in parts[0]}

    def _listed(self, program: Program | Encoder) -> NativeOps:
        buffers = {name: number for number, name in enumerate(program.values)}
        ops = [struct for op in program.ops for struct in self._structs(op, buffers)]
        return NativeOps(self.pool, ops, list(program.values.values()), buffers[program.result])

    def _by_distance(self, bias: RelativeBias) -> torch.Tensor:
        return by_distance(bias, self._layers[bias.table].rows(torch.arange(bias.table.rows)))

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

    def _structs(self, op: Op, buffers: dict[str, int]) -> Iterator[AnyOp]:
        """Of an operation; of a matrix that is several layers, one for each."""
        if not isinstance(op, Linear) or op.weight not in self._parts:
            yield self._struct(op, buffers)
            return
        first = 0
        for part in self._parts[op.weight]:
            yield self._struct(replace(op, weight=part), buffers, first=first)
            first += part.rows

    def _struct(self, op: Op, buffers: dict[str, int], **derived: Any) -> AnyOp:
        if isinstance(op, Scale):
            derived["factor"] = scale_factor(op, self.dtype, None if op.learned is None else self._vectors[op.learned])
        if isinstance(op, Attention):
            derived["slopes"] = self._slopes[op.slopes].data_ptr() if op.slopes else None
            derived["bias"] = self._biases[op.bias].data_ptr() if op.bias else None
            derived["furthest"] = op.bias.furthest if op.bias else 0
        if isinstance(op, Experts):
            derived["up"], derived["down"], derived["count"] = self._handles(op.up), self._handles(op.down), len(op.up)
        if isinstance(op, Convolve):  # the taps of all numbers side by side
            taps = self._vectors[op.weight].view(-1, op.kernel).T.contiguous()
            self._taps.append(taps)
            derived["weight"] = taps.data_ptr()
        if isinstance(op, HeadLinear):
            derived["weights"], derived["heads"] = self._handles(op.weights), len(op.weights)
        return op_struct(op, partial(self._convert, buffers), **derived)

    def _handles(self, weights: tuple[Weight, ...]) -> int:
        """The address of an array of layers."""
        handles = (c_void_p * len(weights))(*(self._layers[weight].handle for weight in weights))
        self._kept.append(handles)
        return ctypes.addressof(handles)

    def _convert(self, buffers: dict[str, int], field: str, value: Any) -> Any:
        if field in ("out", "x", "router", "other"):
            return buffers[value]
        if field == "function":
            return -1 if value is None else FUNCTIONS[value]
        if field == "scores":
            return SCORES[value]
        if field == "sees":
            return SEES[value]
        if isinstance(value, Weight):
            return self._layers[value].handle
        if isinstance(value, Vector):
            return self._vectors[value].data_ptr()
        if value is None:
            return None if field in POINTERS else 0  # no pointer, no window, no cap
        return value
