"""Layers with a state, in torch: each row after the one before it.

A sequence's state is read from one slot and written to another, so that what was read stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tgi.kernels.recurrence import Convolve, DeltaRule, Scan
from tgi.kernels.types import Paging


@dataclass(frozen=True, slots=True)
class StateRows:
    """The states of one layer, and which of a step's sequences read and write which."""

    slots: torch.Tensor  # [slots, numbers] float32
    reads: list[int]
    writes: list[int]
    query_lens: list[int]

    def sequences(self) -> Iterator[tuple[slice, int, int]]:
        """Rows, slot to read (-1: the beginning) and slot to write, of each sequence."""
        row = 0
        for count, read, write in zip(self.query_lens, self.reads, self.writes, strict=True):
            yield slice(row, row + count), read, write
            row += count

    def read(self, slot: int, at: int, shape: tuple[int, ...]) -> torch.Tensor:
        """A copy of a part of the state."""
        size = torch.Size(shape).numel()
        if slot < 0:
            return torch.zeros(shape, device=self.slots.device)
        return self.slots[slot, at : at + size].view(shape).clone()

    def write(self, slot: int, at: int, state: torch.Tensor) -> None:
        self.slots[slot, at : at + state.numel()] = state.flatten()


def state_rows(slots: torch.Tensor, paging: Paging) -> StateRows:
    assert paging.state_reads is not None and paging.state_writes is not None, "the scheduler places states"
    return StateRows(slots, paging.state_reads.tolist(), paging.state_writes.tolist(), paging.query_lens)


def convolve(
    op: Convolve, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, states: StateRows
) -> torch.Tensor:
    """x [tokens, width] float32, weight [width, kernel] -> [tokens, width]"""
    out = torch.empty_like(x)
    for rows, read, write in states.sequences():
        before = states.read(read, op.at, (op.kernel - 1, x.shape[1]))
        known = torch.cat((before, x[rows]))
        result = F.conv1d(known.T[None], weight[:, None], bias, groups=x.shape[1])[0].T
        out[rows] = F.silu(result) if op.function else result
        states.write(write, op.at, known[len(known) - op.kernel + 1 :])
    return out


def scan(
    op: Scan, x: torch.Tensor, dt: torch.Tensor, log_decay: torch.Tensor, skip: torch.Tensor, states: StateRows
) -> torch.Tensor:
    """x [tokens, heads * head_dim + 2 * groups * state_dim], dt [tokens, heads] before its softplus, float32."""
    width, inner = op.heads * op.head_dim, op.groups * op.state_dim
    values = x[:, :width].unflatten(-1, (op.heads, op.head_dim))
    b, c = (part.unflatten(-1, (op.groups, op.state_dim)).repeat_interleave(op.heads // op.groups, 1)
            for part in (x[:, width : width + inner], x[:, width + inner :]))  # fmt: skip
    dt = F.softplus(dt).clamp(op.least, op.most)
    decay = torch.exp(-log_decay.exp() * dt)
    out = torch.empty_like(values)
    for rows, read, write in states.sequences():
        state = states.read(read, op.at, (op.heads, op.head_dim, op.state_dim))
        for row in range(rows.start, rows.stop):
            given = (dt[row, :, None] * values[row])[..., None] * b[row, :, None]
            state = state * decay[row, :, None, None] + given
            out[row] = (state * c[row, :, None]).sum(-1) + skip[:, None] * values[row]
        states.write(write, op.at, state)
    return out.flatten(1)


def delta_rule(
    op: DeltaRule,
    x: torch.Tensor,
    gates: torch.Tensor,
    log_decay: torch.Tensor,
    dt_bias: torch.Tensor,
    states: StateRows,
) -> torch.Tensor:
    """x [tokens, 2 * key_heads * key_dim + heads * value_dim], gates [tokens, 2 * heads] float32."""
    keys, group = op.key_heads * op.key_dim, op.heads // op.key_heads
    q, k = (_unit(part.unflatten(-1, (op.key_heads, op.key_dim))).repeat_interleave(group, 1)
            for part in (x[:, :keys], x[:, keys : 2 * keys]))  # fmt: skip
    q = q * op.key_dim**-0.5
    v = x[:, 2 * keys :].unflatten(-1, (op.heads, op.value_dim))
    beta = gates[:, : op.heads].sigmoid()
    decay = torch.exp(-log_decay.exp() * F.softplus(gates[:, op.heads :] + dt_bias))
    out = torch.empty_like(v)
    for rows, read, write in states.sequences():
        state = states.read(read, op.at, (op.heads, op.key_dim, op.value_dim))
        for row in range(rows.start, rows.stop):
            state = state * decay[row, :, None, None]
            known = (state * k[row, ..., None]).sum(-2)
            state = state + k[row, ..., None] * (beta[row, :, None] * (v[row] - known))[:, None]
            out[row] = (state * q[row, ..., None]).sum(-2)
        states.write(write, op.at, state)
    return out.flatten(1)


def _unit(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)
