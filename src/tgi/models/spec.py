"""`ModelSpec`: a model as data, layer by layer: a decoder, or a decoder with an encoder that is a spec of its own.

The vocabulary in which families describe models: `families` fills it from config.json, `build` makes a program of it.
Imports no torch. Every field is an axis that some family needs and a parity test covers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from tgi.kernels.program import Activation, Scores, Sees
from tgi.kernels.rope_spec import RopeSpec
from tgi.models.names import Names


@dataclass(frozen=True, slots=True, kw_only=True)
class NormSpec:
    """A normalisation of rows, or of parts of rows."""

    kind: Literal["rms", "layer"]
    eps: float
    offset: float = 0.0
    """Added to the stored scale: 1 where checkpoints store the distance from 1."""
    scale: bool = True
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QkNormSpec:
    """Normalises queries and keys before they are turned."""

    norm: NormSpec
    over: Literal["head", "each head", "all heads"] = "head"
    """Each head alone with weights that all share, each with weights of its own, or all heads as one row."""
    after_rope: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RelativeBiasSpec:
    """Numbers added to scores for the distance of the key; see `program.RelativeBias`."""

    buckets: int
    furthest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentSpec:
    """Keys and values of all heads come from one latent, which is what the cache holds (DeepSeek-V2).

    A head's query has `head_dim` numbers, of which the last `turning` are turned. Scores with the latent need the first
    ones multiplied by the matrix that would make keys of latents, and what comes out is multiplied by that of values.
    """

    rank: int
    """Numbers of a latent."""
    query_rank: int | None
    """Of the queries' own latent; None: they have none."""
    turning: int
    """Numbers of the one key that is turned, for all heads."""
    value_dim: int
    norm: NormSpec
    bias: bool = False
    """Of the products that make latents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSpec:
    """Multi-head attention with `kv_heads` groups of heads that share keys and values."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int | None = None
    """How many keys up to its own a row sees; None: all."""
    chunk: int | None = None
    """A row sees keys from the last multiple of this on."""
    sinks: bool = False
    """Each head has a learned score that takes part in the softmax and has no value."""
    latent: LatentSpec | None = None
    soft_cap: float | None = None
    """Scores become cap * tanh(score / cap)."""
    rope: RopeSpec | None = None
    """None: positions are learned embeddings, added once, or ALiBi, or none."""
    query_rope: RopeSpec | None = None
    """Where queries are turned in another way than keys, or keys not at all."""
    rope_adjacent: bool = False
    """Pairs that turn are neighbours; else their distance is half of what turns."""
    slopes: tuple[float, ...] | None = None
    """ALiBi: scores fall with the distance of the key, by a slope of each head (Press et al. 2021)."""
    sees: Sees = "before"
    relative_bias: RelativeBiasSpec | None = None
    qk_norm: QkNormSpec | None = None
    value_norm: NormSpec | None = None
    """Normalises each head of the values."""
    keys_are_values: bool = False
    """Values are what keys are before their norm: one product gives both."""
    keys_of: int | None = None
    """The layer, one before, whose keys and values are used: this one has none. None: its own."""
    clip: float | None = None
    """Queries, keys and values are cut to -clip ... clip."""
    qkv_bias: bool = False
    out_bias: bool = False
    gated: bool = False
    """Queries come with a gate, head by head, whose sigmoid multiplies what attention gives."""

    @property
    def query_size(self) -> int:
        return self.heads * self.head_dim

    @property
    def out_size(self) -> int:
        """Numbers that the output projection gets."""
        return self.heads * (self.head_dim if self.latent is None else self.latent.value_dim)

    @property
    def kv_size(self) -> int:
        return self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortConvSpec:
    """A convolution between two gates: out(c * convolution(b * x)) with b, c, x of one product (LFM2)."""

    kernel: int
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MambaSpec:
    """Mamba 2: a convolution, then a recurrence of `program.Scan`, a gate and a norm of groups."""

    heads: int
    head_dim: int
    state_dim: int
    groups: int
    kernel: int
    conv_bias: bool
    bias: bool
    least_step: float = 0.0
    most_step: float = float("inf")

    @property
    def inner(self) -> int:
        return self.heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaSpec:
    """A gated delta net: a convolution, then a recurrence of `program.DeltaRule`, a norm and a gate."""

    heads: int
    key_heads: int
    key_dim: int
    value_dim: int
    kernel: int
    stacked: bool
    """q, k, v and gate are one tensor, alternating by key heads, and beta and decay another."""


Mixer: TypeAlias = ShortConvSpec | MambaSpec | DeltaSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForwardSpec:
    inner: int
    """0: there is none."""
    activation: Activation
    gated: bool
    """activation(gate(x)) is multiplied with up(x)."""
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsSpec:
    """A mixture of feed-forwards with a gate, of which a router chooses some for each token."""

    count: int
    top: int
    """How many are chosen."""
    inner: int
    activation: Activation
    normalise: bool
    """The weights of the chosen ones sum to 1."""
    shared: int = 0
    """Inner size of one that is always there, with a weight of its own from the router; 0: none."""
    beside: int = 0
    """Inner size of a feed-forward that is always added; 0: none."""
    scores: Scores = "softmax"
    correction: bool = False
    """A learned number is added to each score for the choice."""
    groups: int = 1
    top_groups: int = 1
    """Only experts of so many groups are chosen; see `program.Experts`."""
    group_best: int = 1
    scale: float = 1.0
    """Multiplies the weights."""
    weigh_inputs: bool = False
    limit: float | None = None
    jitter: float = 0.0
    bias: bool = False
    """Of the experts and of the router."""
    beside_dense: bool = False
    """They are added to the layer's feed-forward, each with norms of its own before and after. The router reads the
    residual, normalised with a scale of its own and divided by the root of its width, and each expert has a learned
    factor for its weight (Gemma 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """x + attention(norm(x)), then x + feedforward(norm(x)); with post norms each sum's second term is normalised.

    Norms without a name in `Names` are left out.
    """

    attention: AttentionSpec
    feedforward: FeedForwardSpec
    mixer: Mixer | None = None
    """In place of attention, which then says nothing."""
    experts: ExpertsSpec | None = None
    """In place of the feed-forward."""
    parallel: bool = False
    """Attention and feed-forward read the same residual: x + attention(norm(x)) + feedforward(norm'(x))."""
    norm_sums: bool = False
    """The sums are normalised and not what is added to them: norm(x + attention(x)), then norm(x + feedforward(x))."""
    normed_residual: bool = False
    """x in the sums is what the norm before gave: y = norm(x), y + attention(y)."""
    residual_scale: float = 1.0
    """Multiplies what is added to the residual."""
    learned_scale: bool = False
    """A learned number multiplies the residual at the end."""
    cross: AttentionSpec | None = None
    """Between attention and feed-forward: x + attention(norm(x)) to the encoder's results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A decoder: embedding, layers, norm, head. Axes with a default are those that most families do not use."""

    model_type: str
    vocab_size: int
    hidden_size: int
    layers: tuple[LayerSpec, ...]
    max_positions: int
    """Longest sequence the model can run."""
    norm: NormSpec
    """Of every norm but those of queries and keys."""
    embedding_size: int | None = None
    """Of token embeddings that are projected; None: the hidden size."""
    embedding_scale: float = 1.0
    """Multiplies the token embeddings."""
    embedding_scale_rounded: bool = False
    """The factor is rounded to the serving dtype first."""
    layer_inputs: int = 0
    """Numbers of what each layer reads of the token beside the residual: x + [norm] out(act(gate(x)) * input). They
    are rows of a table plus a product of the embedding (Gemma 4); 0: nothing."""
    first_position: int = 0
    """Row of the first position in the table of positions, which has that many rows more than positions."""
    sinusoidal_positions: Literal["by half", "by width"] | None = None
    """The table of positions is computed and not stored (Vaswani et al. 2017): frequencies fall to 1/10000 at the last
    one of half the width, or would at the width."""
    tied_head: bool
    """The head's weight is the embedding table."""
    head_bias: bool = False
    head_of_unit_rows: bool = False
    """Each row of the head is divided by its length."""
    logit_scale: float = 1.0
    """Multiplies the logits."""
    logit_soft_cap: float | None = None
    """Logits become cap * tanh(logit / cap)."""
    dtype: str | None
    """Of the checkpoint, as its config says: float32, bfloat16, float16; None: look at the tensors."""
    names: Names = field(repr=False)
    encoder: ModelSpec | None = None
    """Runs once over a request's input; its head is not used. The model then is its decoder."""
    decoder_start: tuple[int, ...] = ()
    """Token ids that the decoder begins with, as config.json says."""

    @property
    def positions_go_on(self) -> bool:
        """Beyond `max_positions` too there are positions, so that a longer sequence may be asked for."""
        layers = [layer for layer in self.layers if layer.mixer is None]
        ropes = [
            layer.attention.rope
            for layer in layers
            if layer.attention.slopes is None and layer.attention.relative_bias is None
        ]
        return all(rope is not None and rope.kind in ("linear", "dynamic") for rope in ropes)

    def served_up_to(self, length: int) -> ModelSpec:
        """The model for sequences of at most `length` tokens.

        Where longrope has one set of factors for sequences within the original context and one for longer ones, keys of
        both cannot stand side by side, and a key does not know how long its sequence will be: if longer ones are
        served, all take the factors for these.
        """

        def change(_: int, attention: AttentionSpec) -> AttentionSpec:
            rope = attention.rope
            if rope is None or rope.kind != "longrope" or length <= rope.original_max_positions:
                return attention
            return replace(attention, rope=replace(rope, short_factors=rope.long_factors))

        return self.with_attention(change)

    def with_layers(
        self,
        *,
        attention: dict[str, Any] | None = None,
        feedforward: dict[str, Any] | None = None,
        **fields: Any,
    ) -> ModelSpec:
        """The same model with other values of these fields in every layer."""

        def change(layer: LayerSpec) -> LayerSpec:
            return replace(
                layer,
                attention=replace(layer.attention, **attention or {}),
                feedforward=replace(layer.feedforward, **feedforward or {}),
                **fields,
            )

        return replace(self, layers=tuple(map(change, self.layers)))

    def without_rope(self, where: Callable[[int, AttentionSpec], bool]) -> ModelSpec:
        """The same model with layers that see no positions."""
        return self.with_attention(lambda number, one: replace(one, rope=None) if where(number, one) else one)

    def with_attention(self, change: Callable[[int, AttentionSpec], AttentionSpec]) -> ModelSpec:
        """The same model with the attention of each layer changed, by its number."""
        layers = enumerate(self.layers)
        return replace(self, layers=tuple(replace(n, attention=change(i, n.attention)) for i, n in layers))
