"""The attention layer: fused projection, rotation, store, attend, output projection; and ALiBi's slopes.

Called by `models.decoder`. Knows nothing of the cache's layout; `Ops` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tgi.kernels.ops import KVCache, Paging
from tgi.layers.linear import Build, make_linear
from tgi.layers.rotary import Angles, NoRotary, Rotary


@dataclass(frozen=True, slots=True)
class Step:
    """What all layers share in one forward pass."""

    paging: Paging
    cache: KVCache
    angles: Angles
    plans: Mapping[int | None, Any]
    """For each window among the layers, the plan `Ops.plan_attention` made."""


class Attention:
    """Multi-head attention with `kv_heads` groups of heads sharing keys and values."""

    def __init__(
        self,
        build: Build,
        qkv: tuple[str, ...],
        out: str,
        rotary: Rotary | NoRotary,
        *,
        layer: int,
        hidden: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        scale: float,
        window: int | None,
        soft_cap: float | None,
        alibi: bool,
        qkv_bias: bool,
        out_bias: bool,
        transposed: bool,
        by_head: bool,
    ) -> None:
        self.layer, self.heads, self.kv_heads, self.head_dim = layer, heads, kv_heads, head_dim
        self.scale, self.window, self.rotary, self.soft_cap = scale, window, rotary, soft_cap
        self.slopes = alibi_slopes(heads).to(build.device) if alibi else None
        widths = (heads * head_dim, kv_heads * head_dim, kv_heads * head_dim)
        groups = kv_heads if by_head else 1
        self.qkv = make_linear(build, qkv, hidden, widths, bias=qkv_bias, transposed=transposed, groups=groups)
        self.out = make_linear(build, (out,), widths[0], (hidden,), bias=out_bias, transposed=transposed)
        self._store_kv, self._attention = build.ops.store_kv, build.ops.attention

    def __call__(self, x: torch.Tensor, step: Step) -> torch.Tensor:
        heads = self.qkv(x).unflatten(-1, (-1, self.head_dim))  # [tokens, heads of q, k, v, head_dim]
        turned = self.rotary(heads[:, : self.heads + self.kv_heads], step.angles)
        q, k, v = turned[:, : self.heads], turned[:, self.heads :], heads[:, self.heads + self.kv_heads :]
        self._store_kv(step.cache, self.layer, k, v, step.paging.slots)
        plan = step.plans[self.window]
        return self.out(self._attention(q, step.cache, self.layer, plan, self.scale, self.soft_cap, self.slopes))


def alibi_slopes(heads: int) -> torch.Tensor:
    """Slope of each head, [heads] float32 (Press et al. 2021).

    For n heads, n a power of two: 2^(-8/n), 2^(-16/n), ... For other counts those of the next smaller power
    of two, then every second one of the next larger, as the authors' code has it.
    """
    power = 1 << (heads.bit_length() - 1)
    exponents = [8 * (head + 1) / power for head in range(power)]
    exponents += [4 * (2 * head + 1) / power for head in range(heads - power)]
    return torch.tensor([2.0**-exponent for exponent in exponents])
