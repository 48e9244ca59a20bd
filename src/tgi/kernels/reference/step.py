"""`ReferenceStep`: walks a program in torch.

One line for each operation; what it does is said at the operation in `kernels.program`. Every result is rounded to the
serving dtype, logits are float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from tgi.kernels.program import (
    Activate,
    Add,
    Attention,
    Clamp,
    Embed,
    Experts,
    Gate,
    HeadLinear,
    LayerNorm,
    Linear,
    Multiply,
    Program,
    RelativeBias,
    RmsNorm,
    Rotary,
    Scale,
    SoftCap,
    StoreKV,
)
from tgi.kernels.recurrence import Convolve, DeltaRule, Scan
from tgi.kernels.reference import ops
from tgi.kernels.reference.attention import Plan, Span, attention, plan_attention
from tgi.kernels.reference.cache import store_kv
from tgi.kernels.reference.recurrent import StateRows, convolve, delta_rule, scan, state_rows
from tgi.kernels.reference.rope import Angles, Rope
from tgi.kernels.reference.routing import route
from tgi.kernels.reference.whole import by_distance, whole_attention
from tgi.kernels.types import EncoderKeys, KVCache, Paging, WeightReader
from tgi.kernels.weight import Weight


@dataclass(slots=True)
class Matrix:
    """A matrix in place: dequantised where a format keeps it as codes."""

    weight: torch.Tensor  # [rows, columns]
    bias: torch.Tensor | None  # [rows]
    group: int | None = None  # columns by which activations are rounded to int8; None: they are not
    rotated: bool = False  # they are rounded in rotated form

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [tokens, columns] -> [tokens, rows] of the same dtype"""
        if self.group is not None:
            x = ops.round_activations(x, self.group, rotated=self.rotated).to(x.dtype)
        return ops.linear(x, self.weight, self.bias)

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows `ids` [tokens] of a table, [tokens, columns]."""
        return ops.embedding(ids, self.weight)


@dataclass(slots=True)
class State:
    """What the operations of one step read and write."""

    token_ids: torch.Tensor
    paging: Paging
    cache: KVCache
    angles: list[Angles]  # of each rope
    plans: dict[Span, Plan]
    values: dict[str, torch.Tensor] = field(default_factory=dict)


class ReferenceStep:
    """See `CompiledStep`."""

    def __init__(
        self,
        program: Program,
        weights: WeightReader,
        block_size: int,
        device: torch.device,
        matrices: dict[Weight, Matrix],
    ) -> None:
        self.program, self.device, self.dtype = program, device, weights.dtype
        self._block_size = block_size
        self._matrices = matrices
        self._vectors = {vector: weights.vector(vector).to(device) for vector in program.vectors()}
        self._ropes = [Rope(spec, device) for spec in program.ropes]
        attentions = [op for op in program.all_ops if isinstance(op, Attention)]
        before = [op for op in attentions if op.sees == "before"]
        self._spans = tuple(dict.fromkeys(Span(op.window, op.chunk) for op in before))
        self._slopes = {op.slopes: torch.tensor(op.slopes, device=device) for op in attentions if op.slopes}
        self._biases: dict[RelativeBias, torch.Tensor] = {}  # made when first used: a walk loads the table then

    @property
    def weight_bytes(self) -> int:
        tensors = [tensor for matrix in self._matrices.values() for tensor in (matrix.weight, matrix.bias)]
        return sum(tensor.nbytes for tensor in (*tensors, *self._vectors.values()) if tensor is not None)

    @property
    def hidden_size(self) -> int:
        return self.program.values[self.program.result]

    def forward(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache) -> torch.Tensor:
        """See `CompiledStep.forward`; the result has the serving dtype."""
        state = self.begin(token_ids, paging, cache)
        for op in self.program.ops:
            RUN[type(op)](self, state, op)
        return state.values[self.program.result]

    def begin(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache) -> State:
        """The state of a step before its first operation."""
        plans = {span: plan_attention(self._block_size, paging, span) for span in self._spans}
        return State(token_ids, paging, cache, self._angles(paging), plans)

    def encode(self, token_ids: torch.Tensor, paging: Paging, cache: KVCache) -> None:
        """See `CompiledStep.encode`."""
        assert self.program.encoder is not None
        state = State(token_ids, paging, cache, self._angles(paging), {})
        for op in self.program.encoder.ops:
            RUN[type(op)](self, state, op)

    def _angles(self, paging: Paging) -> list[Angles]:
        return [rope.angles(paging.positions) for rope in self._ropes]

    def logits(self, hidden: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        logits = self._matrices[self.program.logits.weight](hidden).float()
        return ops.finish_logits(logits, self.program.logits)

    def profile(self) -> dict[str, float]:
        return {}

    def _embed(self, state: State, op: Embed) -> None:
        ids = state.paging.positions + op.first if op.by_position else state.token_ids
        state.values[op.out] = self._matrices[op.table].rows(ids)

    def _add(self, state: State, op: Add) -> None:
        state.values[op.out] = ops.add(state.values[op.out], state.values[op.x])

    def _scale(self, state: State, op: Scale) -> None:
        learned = None if op.learned is None else self._vectors[op.learned]
        state.values[op.out] = ops.scale(state.values[op.out], ops.scale_factor(op, self.dtype, learned))

    def _clamp(self, state: State, op: Clamp) -> None:
        state.values[op.out] = state.values[op.out].clamp_(-op.limit, op.limit)

    def _soft_cap(self, state: State, op: SoftCap) -> None:
        state.values[op.out] = ops.soft_cap(state.values[op.out], op.cap)

    def _rms_norm(self, state: State, op: RmsNorm) -> None:
        weight = None if op.weight is None else self._vectors[op.weight]
        if op.each and weight is not None:
            weight = weight.view(op.heads, -1)
        self._norm(state, op, lambda x: ops.rms_norm(x, weight, op.eps))

    def _layer_norm(self, state: State, op: LayerNorm) -> None:
        scale, bias = (None if vector is None else self._vectors[vector] for vector in (op.weight, op.bias))
        if op.each and scale is not None:
            scale = scale.view(op.heads, -1)
        self._norm(state, op, lambda x: ops.layer_norm(x, scale, bias, op.eps))

    def _norm(self, state: State, op: RmsNorm | LayerNorm, norm: Callable[[torch.Tensor], torch.Tensor]) -> None:
        x = state.values[op.x]
        if op.width == x.shape[-1]:
            state.values[op.out] = norm(x)
            return
        heads = self._heads(x, op.offset, op.heads, op.width)
        heads.copy_(norm(heads))

    def _linear(self, state: State, op: Linear) -> None:
        y = self._matrices[op.weight](state.values[op.x])
        state.values[op.out] = ops.add(state.values[op.out], y) if op.add else y

    def _head_linear(self, state: State, op: HeadLinear) -> None:
        x, parts = state.values[op.x], []
        for head, weight in enumerate(op.weights):
            parts.append(self._matrices[weight](x[:, head * op.stride :][:, : weight.columns]))
            if op.tail:
                parts.append(x[:, op.rest + head * op.tail :][:, : op.tail])
        state.values[op.out] = torch.cat(parts, dim=-1)

    def _rotary(self, state: State, op: Rotary) -> None:
        heads = self._heads(state.values[op.x], op.offset, op.heads, op.head_dim)
        heads.copy_(ops.rotary(heads, *state.angles[op.rope], adjacent=op.adjacent))

    def _activate(self, state: State, op: Activate) -> None:
        x = state.values[op.x]
        if op.parameters is None:
            state.values[op.out] = ops.ACTIVATIONS[op.function](x)
        else:
            state.values[op.out] = ops.xielu(x, self._vectors[op.parameters])

    def _gate(self, state: State, op: Gate) -> None:
        state.values[op.out] = ops.gated(ops.ACTIVATIONS[op.function], state.values[op.x])

    def _experts(self, state: State, op: Experts) -> None:
        x = state.values[op.x]
        correction, scales = (None if one is None else self._vectors[one] for one in (op.correction, op.scales))
        ids, weights = route(op, state.values[op.router], correction, scales)
        out = torch.zeros((len(x), op.down[0].rows), dtype=x.dtype, device=x.device)
        for expert in ids.unique().tolist():
            rows, at = (ids == expert).nonzero(as_tuple=True)
            weight = weights[rows, at].unsqueeze(-1)
            given = (x[rows] * weight).to(x.dtype) if op.weigh_inputs else x[rows]
            inner = ops.gated(ops.ACTIVATIONS[op.function], self._matrices[op.up[expert]](given), op.limit)
            y = self._matrices[op.down[expert]](inner)
            out[rows] += y if op.weigh_inputs else (y * weight).to(x.dtype)
        state.values[op.out] = out

    def _multiply(self, state: State, op: Multiply) -> None:
        out = state.values[op.out]
        x = state.values[op.x][:, op.offset : op.offset + out.shape[-1]]
        factor = {None: lambda given: given, "silu": F.silu, "sigmoid": torch.sigmoid}[op.function](x)
        state.values[op.out] = out * factor

    def _states(self, state: State, op: Convolve | Scan | DeltaRule) -> StateRows:
        return state_rows(state.cache.states[op.state], state.paging)

    def _convolve(self, state: State, op: Convolve) -> None:
        weight = self._vectors[op.weight].float().view(-1, op.kernel)
        bias = None if op.bias is None else self._vectors[op.bias].float()
        x = state.values[op.x][:, op.offset : op.offset + len(weight)]
        result = convolve(op, x.float(), weight, bias, self._states(state, op))
        state.values[op.out] = result.to(x.dtype)

    def _scan(self, state: State, op: Scan) -> None:
        x, other = state.values[op.x], state.values[op.other][:, op.offset : op.offset + op.heads]
        log_decay, bias, skip = (self._vectors[vector].float() for vector in (op.log_decay, op.dt_bias, op.skip))
        result = scan(op, x.float(), other.float() + bias, log_decay, skip, self._states(state, op))
        state.values[op.out] = result.to(x.dtype)

    def _delta_rule(self, state: State, op: DeltaRule) -> None:
        x, other = state.values[op.x], state.values[op.other][:, op.offset : op.offset + 2 * op.heads]
        log_decay, bias = (self._vectors[vector].float() for vector in (op.log_decay, op.dt_bias))
        result = delta_rule(op, x.float(), other.float(), log_decay, bias, self._states(state, op))
        state.values[op.out] = result.to(x.dtype)

    def _store_kv(self, state: State, op: StoreKV) -> None:
        parts = ((state.cache.keys, op.keys), (state.cache.values, op.values))
        for store, offset in parts[: state.cache.shape.layers[op.layer].stores]:
            rows = self._heads(state.values[op.x], offset, op.kv_heads, op.head_dim)
            store_kv(store[op.layer], rows, state.paging.slots)

    def _attention(self, state: State, op: Attention) -> None:
        queries = self._heads(state.values[op.x], op.queries, op.heads, op.head_dim)
        bias = None if op.bias is None else self._by_distance(op.bias)
        if op.sees == "before":
            slopes = self._slopes[op.slopes] if op.slopes else None
            sinks = None if op.sinks is None else self._vectors[op.sinks]
            plan = state.plans[Span(op.window, op.chunk)]
            out = attention(queries, state.cache, op.layer, plan, op.scale, op.soft_cap, slopes, sinks, bias)
        else:
            paging = state.paging
            own = EncoderKeys(paging.block_tables, paging.context_lens, paging.contexts)
            keys = paging.encoder if op.sees == "encoder" else own
            assert keys is not None
            out = whole_attention(queries, state.cache, op.layer, paging, keys, op.scale, op.soft_cap, bias)
        state.values[op.out] = out

    def _by_distance(self, bias: RelativeBias) -> torch.Tensor:
        if bias not in self._biases:
            every = torch.arange(bias.table.rows, device=self.device)
            self._biases[bias] = by_distance(bias, self._matrices[bias.table].rows(every).cpu()).to(self.device)
        return self._biases[bias]

    @staticmethod
    def _heads(x: torch.Tensor, offset: int, heads: int, head_dim: int) -> torch.Tensor:
        """A view [tokens, heads, head_dim] of a part of x."""
        return x[:, offset : offset + heads * head_dim].unflatten(-1, (heads, head_dim))


RUN: dict[type, Callable[[ReferenceStep, State, Any], None]] = {
    Embed: ReferenceStep._embed,
    Add: ReferenceStep._add,
    Scale: ReferenceStep._scale,
    Clamp: ReferenceStep._clamp,
    SoftCap: ReferenceStep._soft_cap,
    RmsNorm: ReferenceStep._rms_norm,
    LayerNorm: ReferenceStep._layer_norm,
    Linear: ReferenceStep._linear,
    HeadLinear: ReferenceStep._head_linear,
    Rotary: ReferenceStep._rotary,
    Activate: ReferenceStep._activate,
    Gate: ReferenceStep._gate,
    Experts: ReferenceStep._experts,
    Multiply: ReferenceStep._multiply,
    Convolve: ReferenceStep._convolve,
    Scan: ReferenceStep._scan,
    DeltaRule: ReferenceStep._delta_rule,
    StoreKV: ReferenceStep._store_kv,
    Attention: ReferenceStep._attention,
}
"""Operation -> what runs it."""
