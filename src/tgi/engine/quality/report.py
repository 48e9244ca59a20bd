"""What is asked of the process that measures one format, and its answers, line by line as JSON. Imports no torch."""

from __future__ import annotations

import msgspec

from tgi.child_lines import Failed
from tgi.settings.config import EngineConfig

BATCHES = (1, 16)
"""Requests at once for which decoding is measured."""
PROMPT_TOKENS = 512
"""Of the prompt whose prefill is measured; fewer where the model is shorter."""


class Task(msgspec.Struct, frozen=True):
    """One format."""

    engine: EngineConfig
    texts: tuple[tuple[int, ...], ...]
    """Token ids of pieces of text, each read by itself."""
    reference: str
    """File with what the unquantised model said of them."""
    is_reference: bool
    """Write that file."""
    seconds: float
    """About how long each measurement of speed may take; 0: none is made."""


class Part(msgspec.Struct, tag="part"):
    """Something begins, or is so far."""

    what: str
    done: int = 0
    total: int = 0


class Measured(msgspec.Struct, tag="measured"):
    """What was found."""

    parameters: int
    weight_bytes: int
    """In memory, as the engine counts them."""
    resident_bytes: int
    """That the process has more than before it loaded the model."""
    load_s: float
    dtype: str
    quantize: str | None
    losses: list[list[float]]
    """-log p of each token of each text but its first."""
    divergences: list[list[float]]
    """KL divergence from the unquantised model's prediction of each of them, nats; empty for that model."""
    prefill_tps: float | None
    decode_tps: dict[int, float]


Line = Part | Measured | Failed
