"""`RopeSpec`: a rotary position embedding as data. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary position embedding: how fast each pair of dimensions turns.

    kind: as in Hugging Face's `rope_type`; dynamic is NTK-aware.
    """

    kind: Literal["default", "linear", "dynamic", "llama3", "yarn", "longrope", "proportional"]
    theta: float
    dim: int
    """Dimensions of a head that turn, even."""
    factor: float = 1.0
    original_max_positions: int = 0
    """Context of pre-training, for dynamic, llama3, yarn and longrope, and for `temperature`."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    """Multiplies cos and sin (yarn, longrope)."""
    truncate: bool = True
    """Round the correction range of yarn to whole dimensions."""
    short_factors: tuple[float, ...] = ()
    """longrope: what each pair is slowed down by within the original context, and beyond it."""
    long_factors: tuple[float, ...] = ()
    turning: int = 0
    """proportional: how many pairs turn at all; the angles of the others are 0."""
    temperature: float = 0.0
    """Multiplies cos and sin by 1 + temperature * log(1 + floor((position + first_period) / original_max_positions))
    (Llama 4)."""
    first_period: int = 0
