"""`Names`: where a family keeps its tensors. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedExperts:
    """Layout of tensors that hold the matrices of all experts of a layer."""

    stacked: bool = True
    """[experts, rows, columns]; else [experts * rows, columns]."""
    transposed_up: bool = False
    transposed_down: bool = False
    alternate: bool = False
    """Rows of gate and up take turns."""
    suffixes: tuple[str, str] = ("", "_bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentNames:
    """Modules of attention over latents."""

    query_down: str
    query_norm: str
    query_up: str
    """`qkv` has the single one of queries that have no latent."""
    down: str
    norm: str
    up: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideDenseNames:
    """Of `ExpertsSpec.beside_dense`: modules of norms, full names of the tensors of scales."""

    dense_post_norm: str
    norm: str
    post_norm: str
    router_scale: str
    expert_scales: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerInputNames:
    """Modules of `ModelSpec.layer_inputs`: the first three of all layers together."""

    table: str
    product: str
    norm: str
    gate: str
    out: str
    post_norm: str


@dataclass(frozen=True, slots=True)
class Names:
    """Where a family keeps its tensors: names of modules without `.weight` and `.bias`.

    `{}` stands for the layer number. `qkv` and `up` hold one name for each separately stored part, or
    a single name where the checkpoint stores them concatenated by rows.
    """

    embedding: str
    final_norm: str | None
    head: str
    attention_norm: str | None
    qkv: tuple[str, ...]
    attention_out: str
    feedforward_norm: str | None
    """In parallel layers the same name as `attention_norm` where one norm serves both."""
    up: tuple[str, ...]
    """(gate, up) with a gate, else (up,)."""
    down: str
    positions: str | None = None
    embedding_norm: str | None = None
    attention_post_norm: str | None = None
    feedforward_post_norm: str | None = None
    query_norm: str | None = None
    """Of `AttentionSpec.qk_norm`; `{head}` in it stands for the head's number."""
    key_norm: str | None = None
    project_in: str | None = None
    """From embeddings of `ModelSpec.embedding_size` numbers to the hidden size, and back before the head."""
    project_out: str | None = None
    router: str | None = None
    """Of the experts; `{expert}` in the names below stands for the expert's number."""
    expert_up: tuple[str, ...] = ()
    expert_down: str | None = None
    expert_layout: FusedExperts | None = None
    """None: each expert has tensors of its own."""
    beside_dense: BesideDenseNames | None = None
    correction: str | None = None
    """Full name of the tensor of `ExpertsSpec.correction`."""
    sinks: str | None = None
    """Full name of the tensor of `AttentionSpec.sinks`."""
    latent: LatentNames | None = None
    layer_inputs: LayerInputNames | None = None
    layer_scale: str | None = None
    """Full name of the tensor of `LayerSpec.learned_scale`."""
    mixer: str | None = None
    """Module of `LayerSpec.mixer`."""
    shared_router: str | None = None
    shared_up: tuple[str, ...] = ()
    shared_down: str | None = None
    cross_norm: str | None = None
    """Of the attention to an encoder's results, as the three that follow."""
    cross_query: str | None = None
    cross_keys_values: tuple[str, ...] = ()
    cross_out: str | None = None
    relative_bias: str | None = None
    """Of `AttentionSpec.relative_bias`; without `{}` where all layers share one."""
    head_bias: str | None = None
    """Full name of the tensor of `ModelSpec.head_bias`, where it is not the head's `.bias`."""
    activation: tuple[str, ...] = ()
    """Full names of the tensors that an activation function with learned numbers has."""
    qkv_groups: int = 1
    """The single qkv tensor alternates between q, k and v this many times, whatever the number of heads."""
    qkv_order: tuple[int, ...] = ()
    """In which order q (0), k (1) and v (2) follow each other in the single tensor; empty: q, k, v."""
    qkv_by_head: bool = False
    """The single qkv tensor holds q, k, v of the first KV head, then of the second, and so on."""
    prefix: str = ""
    """Base-model prefix that some checkpoints leave out."""
    beside_others: bool = False
    """The language model is one part of the checkpoint, and stored names say so: see `models.text_part`."""
    transposed: bool = False
    """Linear weights are stored [in, out]."""
    ignored: tuple[str, ...] = ()
    """Regular expressions of full tensor names that carry nothing the model needs."""
