"""Operations of a `program.Program` with a state in place of keys and values. Pure data; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tgi.kernels.weight import Vector


@dataclass(frozen=True, slots=True)
class Convolve:
    """out[t] = function(bias + sum over j of weight[j] x[t - kernel + 1 + j]), number by number of x from `offset` on.

    The rows before the step's first, zeros at the beginning, are numbers `at` ... of state `state`, the oldest first.
    weight: [numbers of out, kernel].
    """

    out: str
    x: str
    weight: Vector
    bias: Vector | None
    kernel: int
    state: int
    at: int = 0
    offset: int = 0
    function: Literal["silu"] | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """State space duality (Dao and Gu 2024). Head h: S = exp(-exp(log_decay) dt) S + dt x b^T, out = S c + skip x.

    x has all heads' x, `head_dim` numbers each, then b and c of `groups` groups of heads, `state_dim` numbers each.
    dt = softplus(what `other` has from `offset` on + dt_bias), cut to `least` ... `most`. S, [heads, head_dim,
    state_dim], is what state `state` has from `at` on.
    """

    out: str
    x: str
    other: str
    log_decay: Vector
    dt_bias: Vector
    skip: Vector
    heads: int
    head_dim: int
    state_dim: int
    groups: int
    state: int
    at: int
    offset: int
    least: float = 0.0
    most: float = float("inf")


@dataclass(frozen=True, slots=True)
class DeltaRule:
    """Gated delta rule (Yang et al. 2024). Head h: S = decay S, S += k (beta (v - k^T S))^T, out = S^T q.

    x has queries and keys of `key_heads` heads, `key_dim` numbers each, then values of `heads` heads, `value_dim` each;
    heads of values in a row share a key. q and k are divided by their length, q also by sqrt(key_dim). `other` has
    from `offset` on for each head the logit of beta, then a: decay = exp(-exp(log_decay) softplus(a + dt_bias)). S,
    [heads, key_dim, value_dim], is what state `state` has from `at` on.
    """

    out: str
    x: str
    other: str
    log_decay: Vector
    dt_bias: Vector
    heads: int
    key_heads: int
    key_dim: int
    value_dim: int
    state: int
    at: int
    offset: int = 0
