"""Granite, GraniteMoE and Granite 4. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader
from tgi.models.families.recurrent import mamba_spec
from tgi.models.families.shared import LLAMA_NAMES, Defaults, experts_of, llama_like, no_rope, with_experts, with_mixers
from tgi.models.names import FusedExperts
from tgi.models.spec import ExpertsSpec, ModelSpec

GRANITE_MOE_NAMES = replace(
    LLAMA_NAMES,
    router="model.layers.{}.block_sparse_moe.router.layer",
    expert_up=("model.layers.{}.block_sparse_moe.input_linear",),
    expert_down="model.layers.{}.block_sparse_moe.output_linear",
    expert_layout=FusedExperts(suffixes=(".weight", ".bias")),
)

GRANITE_HYBRID_NAMES = replace(
    GRANITE_MOE_NAMES,
    up=("model.layers.{}.shared_mlp.input_linear",),
    down="model.layers.{}.shared_mlp.output_linear",
    shared_up=("model.layers.{}.shared_mlp.input_linear",),
    shared_down="model.layers.{}.shared_mlp.output_linear",
    mixer="model.layers.{}.mamba",
)


def granite(reader: ConfigReader) -> ModelSpec:
    """Llama with factors at the embedding, scores, residual and logits."""
    spec = llama_like(
        reader,
        Defaults(positions=2048),
        attention_bias=reader.flag("attention_bias", False),
        feedforward_bias=reader.flag("mlp_bias", False),
    )
    return _with_factors(spec, reader)


def granitemoe(reader: ConfigReader) -> ModelSpec:
    """Granite with experts, whose weights are the softmax over the chosen ones."""
    spec = llama_like(
        reader, Defaults(positions=2048), attention_bias=reader.flag("attention_bias", False), names=GRANITE_MOE_NAMES
    )
    experts = experts_of(spec, reader, ("num_local_experts", 8), 2, normalise=True)
    return with_experts(_with_factors(spec, reader), reader, experts)


def granitemoehybrid(reader: ConfigReader) -> ModelSpec:
    """Mamba 2 in most layers, attention in some; a feed-forward beside the experts, or alone."""
    bias, turns = reader.flag("attention_bias", False), reader.get("position_embedding_type")
    reader.only("position_embedding_type", "rope", "nope")
    spec = llama_like(reader, Defaults(positions=2048), attention_bias=bias, names=GRANITE_HYBRID_NAMES)
    if turns != "rope":
        no_rope(reader, "this model has no positions")
        spec = spec.with_layers(attention={"rope": None})
    shared = reader.size("shared_intermediate_size", 1024)
    if reader.get("num_local_experts", 8):
        experts = experts_of(spec, reader, ("num_local_experts", 8), 2, normalise=True, beside=shared)
        spec = with_experts(spec, reader, experts)
    else:
        with_experts(spec, reader, ExpertsSpec(count=1, top=1, inner=1, activation="silu", normalise=True))
        reader.get("num_experts_per_tok")
        spec = spec.with_layers(feedforward={"inner": shared})
    return _with_mamba(_with_factors(spec, reader), reader)


def _with_mamba(spec: ModelSpec, reader: ConfigReader) -> ModelSpec:
    heads, width = reader.size("mamba_n_heads", 128), spec.hidden_size * reader.size("mamba_expand", 2)
    reader.get("mamba_chunk_size")
    head_dim = width // heads if reader.get("mamba_d_head", "auto") == "auto" else reader.size("mamba_d_head")
    mamba = mamba_spec(
        reader,
        width,
        spec.layers[0].feedforward.activation,
        heads=heads,
        head_dim=head_dim,
        state_dim=reader.size("mamba_d_state", 256),
        groups=reader.size("mamba_n_groups", 1),
        kernel=reader.size("mamba_d_conv", 4),
        conv_bias=reader.flag("mamba_conv_bias", True),
        bias=reader.flag("mamba_proj_bias", False),
    )
    types = reader.get("layer_types") or reader.get("layers_block_type") or ["mamba"] * len(spec.layers)
    known = {"mamba": mamba, "attention": None, "linear_attention": mamba, "full_attention": None}
    return with_mixers(spec, types, known)


def _with_factors(spec: ModelSpec, reader: ConfigReader) -> ModelSpec:
    spec = spec.with_layers(
        attention={"scale": reader.number("attention_multiplier", 1.0)},
        residual_scale=reader.number("residual_multiplier", 1.0),
    )
    return replace(
        spec,
        embedding_scale=reader.number("embedding_multiplier", 1.0),
        logit_scale=1.0 / reader.number("logits_scaling", 1.0),
    )


FAMILIES = {"granite": granite, "granitemoe": granitemoe, "granitemoehybrid": granitemoehybrid}
