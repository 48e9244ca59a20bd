"""`RopeSpec`: a rotary position embedding as data. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary position embedding: how fast each pair of dimensions turns.

    kind: default, linear, dynamic (NTK-aware), llama3 or yarn, as in Hugging Face's `rope_type`.
    """

    kind: Literal["default", "linear", "dynamic", "llama3", "yarn"]
    theta: float
    dim: int
    """Dimensions of a head that turn, even."""
    factor: float = 1.0
    original_max_positions: int = 0
    """Context of pre-training, for dynamic, llama3 and yarn."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    """Multiplies cos and sin (yarn)."""
    truncate: bool = True
    """Round the correction range of yarn to whole dimensions."""
