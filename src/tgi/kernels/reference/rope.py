"""The angles of rotary position embeddings: inverse frequencies of each rope type, cos and sin of positions.

Formulas: Su et al. 2021; linear: Chen et al. 2023; dynamic NTK; yarn: Peng et al. 2023; longrope: Ding et al. 2024;
llama3: Llama 3.1, computed in float32 as transformers does. Angles are made once a step and shared by all layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch

from tgi.kernels.rope_spec import RopeSpec

Angles: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""cos and sin [tokens, rotary_dim / 2] float32"""


class Rope:
    """Makes the angles of a step from the positions of its rows.

    dynamic, longrope: the base or the factors depend on the length of the sequence. Taking it from each row's own
    position makes a row independent of its batch, of chunking and of cache hits; it equals transformers' token by
    token decoding, and everything up to the original context.
    """

    def __init__(self, spec: RopeSpec, device: torch.device) -> None:
        self.spec = spec
        self.frequencies = inverse_frequencies(spec).to(device)
        kinds = {"dynamic": self._dynamic_turns, "longrope": self._long_turns}
        self._turns: Callable[[torch.Tensor], torch.Tensor] = kinds.get(spec.kind, self._fixed_turns)

    def angles(self, positions: torch.Tensor) -> Angles:
        """positions [tokens] int64 -> cos, sin [tokens, dim / 2] float32"""
        turns = self._turns(positions.float()[:, None])
        factor = self.spec.attention_factor
        if self.spec.temperature:
            periods = ((positions + self.spec.first_period) // self.spec.original_max_positions).float()[:, None]
            factor = factor * (1 + self.spec.temperature * torch.log1p(periods))
        return turns.cos() * factor, turns.sin() * factor

    def _fixed_turns(self, positions: torch.Tensor) -> torch.Tensor:
        return positions * self.frequencies

    def _long_turns(self, positions: torch.Tensor) -> torch.Tensor:
        rope = self.spec
        slow = self.frequencies / torch.tensor(rope.long_factors, device=positions.device)
        fast = self.frequencies / torch.tensor(rope.short_factors, device=positions.device)
        return positions * torch.where(positions < rope.original_max_positions, fast, slow)

    def _dynamic_turns(self, positions: torch.Tensor) -> torch.Tensor:
        rope = self.spec
        stretch = ((positions + 1) / rope.original_max_positions).clamp(min=1.0)
        base = rope.theta * (rope.factor * stretch - (rope.factor - 1)) ** (rope.dim / (rope.dim - 2))
        return positions / base ** _exponents(rope.dim).to(positions.device)


def inverse_frequencies(rope: RopeSpec) -> torch.Tensor:
    """Radians a position for each pair of dimensions, [dim / 2] float32."""
    plain = 1.0 / rope.theta ** _exponents(rope.dim)
    if rope.kind == "linear":
        return plain / rope.factor
    if rope.kind == "llama3":
        return _llama3(rope, plain)
    if rope.kind == "yarn":
        return _yarn(rope, plain)
    if rope.kind == "proportional":
        return torch.where(torch.arange(rope.dim // 2) < rope.turning, plain, 0.0) / rope.factor
    return plain


def _exponents(dim: int) -> torch.Tensor:
    return torch.arange(0, dim, 2, dtype=torch.float32) / dim


def _llama3(rope: RopeSpec, plain: torch.Tensor) -> torch.Tensor:
    """Slow pairs are divided by the factor, fast ones kept, those between interpolated; there may be none between."""
    rotations = rope.original_max_positions * plain / (2 * math.pi)  # over the original context
    blend = (rotations - rope.low_freq_factor) / max(rope.high_freq_factor - rope.low_freq_factor, 1e-9)
    blend = blend.clamp(0, 1)
    return (1 - blend) * plain / rope.factor + blend * plain


def _yarn(rope: RopeSpec, plain: torch.Tensor) -> torch.Tensor:
    """Pairs turning more than beta_fast times in the original context are kept, fewer than beta_slow scaled."""

    def pair_turning(times: float) -> float:
        return rope.dim * math.log(rope.original_max_positions / (times * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_turning(rope.beta_fast), pair_turning(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    ramp = (torch.arange(rope.dim // 2, dtype=torch.float32) - low) / max(high - low, 0.001)
    scaled = ramp.clamp(0, 1)
    return plain / rope.factor * scaled + plain * (1 - scaled)
