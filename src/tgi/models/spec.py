"""`DecoderSpec`: a decoder-only model as data.

Owns the vocabulary in which families describe models; `families` fills it from config.json, `decoder`
builds from it, `sizes` and the memory plan compute with it. Imports no torch, so that a plan can be
made without it. Every field is an axis that some family needs and a parity test covers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tgi.layers.rope_spec import RopeSpec


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
class DecoderSpec:
    """A decoder: embedding, `num_layers` pre-norm blocks of attention and feed-forward, norm, head.

    Axes with a default are those that most families do not use.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    max_positions: int
    """Longest sequence the model can run."""
    norm: Literal["rms", "layer"]
    norm_eps: float
    activation: str
    gated: bool
    """The feed-forward layer multiplies activation(gate(x)) with up(x)."""
    attention_scale: float
    rope: RopeSpec | None
    """None: positions are learned embeddings, added once, or ALiBi."""
    alibi: bool = False
    """Scores fall with the distance of the key, by a slope of each head (Press et al. 2021)."""
    windows: tuple[int | None, ...]
    """For each layer, how many keys up to its own a row sees; None: all."""
    qkv_bias: bool
    attention_out_bias: bool
    feedforward_bias: bool
    tied_head: bool
    """The head's weight is the embedding table."""
    embedding_scale: float = 1.0
    """Multiplies the token embeddings, rounded to the serving dtype first."""
    norm_offset: float = 0.0
    """Added to the stored scale of every norm: 1 where checkpoints store the distance from 1."""
    parallel: bool = False
    """Attention and feed-forward read the same residual: x + attention(norm(x)) + feedforward(norm'(x))."""
    attention_soft_cap: float | None = None
    """Scores become cap * tanh(score / cap)."""
    logit_soft_cap: float | None = None
    """The same for the logits."""
    dtype: str | None
    """Of the checkpoint, as its config says: float32, bfloat16, float16; None: look at the tensors."""
    names: Names = field(repr=False)

    @property
    def positions_go_on(self) -> bool:
        """Beyond `max_positions` too there are positions, so that a longer sequence may be asked for."""
        return self.alibi or (self.rope is not None and self.rope.kind in ("linear", "dynamic"))

    @property
    def learned_positions(self) -> bool:
        """Positions are an embedding table of `max_positions` rows."""
        return self.names.positions is not None

    @property
    def embedding_norm(self) -> bool:
        """The embeddings are normalised before the first layer."""
        return self.names.embedding_norm is not None

    @property
    def post_norms(self) -> bool:
        """What attention and feed-forward give is normalised before it is added to the residual."""
        return self.names.attention_post_norm is not None

    @property
    def query_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_dim
