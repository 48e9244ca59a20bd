"""What there is to know of a model that is no program: sizes, for limits and memory. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from tgi.kernels.program import CacheLayer


@dataclass(frozen=True, slots=True)
class EncoderOutline:
    """What reads a request's input, where the model has an encoder."""

    max_positions: int
    """Longest input."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A model that other code than ours computes. Named as in `Program` where it says the same."""

    model_type: str
    class_name: str
    """Of transformers, or of the checkpoint's own code."""
    vocab_size: int
    parameters: int
    hidden_size: int
    widest: int
    """Numbers of the widest row inside a layer."""
    cache: tuple[CacheLayer, ...]
    """Empty where the model keeps a cache of its own."""
    own_cache: tuple[CacheLayer, ...]
    """What that takes for each token, at most."""
    max_positions: int
    dtype: str | None
    """Of the checkpoint, as its config says."""
    positions_go_on: bool = False
    states: tuple[int, ...] = ()
    input_vocab_size: int = 0
    """Ids that an input may have."""
    encoder: EncoderOutline | None = None
