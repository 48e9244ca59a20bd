"""What `tgi inspect` finds; with `--json` it is printed as it stands."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Route: TypeAlias = Literal["native", "transformers", "refused"]
"""How the model is computed: as a program of ours, by transformers' own code, or not at all."""


class Files(msgspec.Struct):
    """The files of the weights."""

    names: list[str]
    format: str
    """safetensors, gguf, or pickle: files that are converted before they are served, and not looked into until then."""
    bytes: int | None
    """Of all tensors; None where they are unknown."""
    types: dict[str, int]
    """Type of numbers -> tensors of it."""


class Tensors(msgspec.Struct):
    """The names that the checkpoint holds against those that the model needs; of long lists only the beginning."""

    stored: int
    needed: int
    found: int
    missing: list[str]
    missing_count: int
    unused: list[str]
    """Stored, and nobody knows what for."""
    unused_count: int
    ignored_count: int
    """Stored, and known to carry nothing that the model needs."""
    misshapen: list[str]
    """A sentence for each."""


class Part(msgspec.Struct):
    """A part of the model."""

    name: str
    parameters: int


class Kind(msgspec.Struct):
    """Layers that are computed alike, or what comes before or after them."""

    name: str
    layers: list[int]
    """Their numbers; empty outside of layers."""
    operations: list[str]


class Cache(msgspec.Struct):
    """What a sequence takes beside the weights, in bytes."""

    dtype: str
    bytes_per_token: int
    """Of keys and values."""
    state_bytes: int
    """However long the sequence is."""


class Inspection(msgspec.Struct, kw_only=True):
    """All findings about one checkpoint."""

    model_id: str
    path: str
    model_type: str | None
    title: str | None
    """What people call the family."""
    architectures: list[str]
    route: Route = "refused"
    why: str = ""
    quantisation: str | None = None
    """As the checkpoint says; None: plain weights."""
    bits_per_weight: float | None = None
    """Of all that is stored, over the parameters."""
    stored_dtype: str | None = None
    """As config.json says."""
    serving_dtype: str | None = None
    context: int | None = None
    """Most tokens of a request."""
    vocabulary: int | None = None
    parameters: int | None = None
    parts: list[Part] = []
    weight_bytes: int | None = None
    """When served, in the serving dtype or rounded as the flags say; what is stored in codes takes less."""
    cache: Cache | None = None
    program: list[Kind] = []
    encoder: list[Kind] = []
    files: Files | None = None
    tensors: Tensors | None = None
    tokenizer: str | None
    """The file that it is read from, or made of."""
    chat_template: bool | None
    """None: not looked for."""
    problems: list[str] = []
    """Why it cannot be served here, a sentence each; empty when it can."""
