"""`ModelSpec`: a decoder-only model as data, layer by layer.

The vocabulary in which families describe models: `families` fills it from config.json, `build` makes a program of it.
Imports no torch. Every field is an axis that some family needs and a parity test covers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tgi.kernels.program import Activation
from tgi.kernels.rope_spec import RopeSpec


@dataclass(frozen=True, slots=True)
class Names:
    """Where a family keeps its tensors: names of modules without `.weight` and `.bias`.

    `{}` stands for the layer number. `qkv` and `up` hold one name for each separately stored part, or
    a single name where the checkpoint stores them concatenated by rows.
    """

    embedding: str
    final_norm: str
    head: str
    attention_norm: str
    qkv: tuple[str, ...]
    attention_out: str
    feedforward_norm: str
    up: tuple[str, ...]
    """(gate, up) with a gate, else (up,)."""
    down: str
    positions: str | None = None
    embedding_norm: str | None = None
    attention_post_norm: str | None = None
    feedforward_post_norm: str | None = None
    qkv_by_head: bool = False
    """The single qkv tensor holds q, k, v of the first head, then of the second, and so on."""
    prefix: str = ""
    """Base-model prefix that some checkpoints leave out."""
    transposed: bool = False
    """Linear weights are stored [in, out]."""
    ignored: tuple[str, ...] = ()
    """Regular expressions of full tensor names that carry nothing the model needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSpec:
    """Multi-head attention with `kv_heads` groups of heads that share keys and values."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int | None = None
    """How many keys up to its own a row sees; None: all."""
    soft_cap: float | None = None
    """Scores become cap * tanh(score / cap)."""
    rope: RopeSpec | None = None
    """None: positions are learned embeddings, added once, or ALiBi, or none."""
    alibi: bool = False
    """Scores fall with the distance of the key, by a slope of each head (Press et al. 2021)."""
    qkv_bias: bool = False
    out_bias: bool = False

    @property
    def query_size(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForwardSpec:
    inner: int
    activation: Activation
    gated: bool
    """activation(gate(x)) is multiplied with up(x)."""
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """x + attention(norm(x)), then x + feedforward(norm(x)); with post norms each sum's second term is normalised."""

    attention: AttentionSpec
    feedforward: FeedForwardSpec
    parallel: bool = False
    """Attention and feed-forward read the same residual: x + attention(norm(x)) + feedforward(norm'(x))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A decoder: embedding, layers, norm, head. Axes with a default are those that most families do not use."""

    model_type: str
    vocab_size: int
    hidden_size: int
    layers: tuple[LayerSpec, ...]
    max_positions: int
    """Longest sequence the model can run."""
    norm: Literal["rms", "layer"]
    norm_eps: float
    norm_offset: float = 0.0
    """Added to the stored scale of every norm: 1 where checkpoints store the distance from 1."""
    embedding_scale: float = 1.0
    """Multiplies the token embeddings, rounded to the serving dtype first."""
    tied_head: bool
    """The head's weight is the embedding table."""
    logit_soft_cap: float | None = None
    """Logits become cap * tanh(logit / cap)."""
    dtype: str | None
    """Of the checkpoint, as its config says: float32, bfloat16, float16; None: look at the tensors."""
    names: Names = field(repr=False)

    @property
    def positions_go_on(self) -> bool:
        """Beyond `max_positions` too there are positions, so that a longer sequence may be asked for."""
        attentions = (layer.attention for layer in self.layers)
        return all(a.alibi or (a.rope is not None and a.rope.kind in ("linear", "dynamic")) for a in attentions)

    def with_layers(
        self,
        *,
        attention: dict[str, Any] | None = None,
        feedforward: dict[str, Any] | None = None,
        parallel: bool | None = None,
    ) -> ModelSpec:
        """The same model with other values of these fields in every layer."""

        def change(layer: LayerSpec) -> LayerSpec:
            return LayerSpec(
                attention=replace(layer.attention, **attention or {}),
                feedforward=replace(layer.feedforward, **feedforward or {}),
                parallel=layer.parallel if parallel is None else parallel,
            )

        return replace(self, layers=tuple(map(change, self.layers)))
