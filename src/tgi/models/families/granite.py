"""Granite and GraniteMoE. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, llama_like, with_experts
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import ExpertsSpec, FusedExperts, ModelSpec

GRANITE_MOE_NAMES = replace(
    LLAMA_NAMES,
    router="model.layers.{}.block_sparse_moe.router.layer",
    expert_up=("model.layers.{}.block_sparse_moe.input_linear",),
    expert_down="model.layers.{}.block_sparse_moe.output_linear",
    expert_layout=FusedExperts(suffixes=(".weight", ".bias")),
)


def granite(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Llama with factors at the embedding, scores, residual and logits."""
    attention_bias = reader.flag("attention_bias", False)
    spec = llama_like(
        reader,
        override,
        default_positions=2048,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        feedforward_bias=reader.flag("mlp_bias", False),
    )
    return _with_factors(spec, reader)


def granitemoe(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Granite with experts, whose weights are the softmax over the chosen ones."""
    bias = reader.flag("attention_bias", False)
    spec = llama_like(
        reader, override, default_positions=2048, qkv_bias=bias, attention_out_bias=bias, names=GRANITE_MOE_NAMES
    )
    return with_experts(_with_factors(spec, reader), reader, granite_experts(spec, reader))


def granite_experts(spec: ModelSpec, reader: ConfigReader) -> ExpertsSpec:
    feedforward = spec.layers[0].feedforward
    return ExpertsSpec(
        count=reader.size("num_local_experts", 8, most=4096),
        top=reader.size("num_experts_per_tok", 2),
        inner=feedforward.inner,
        activation=feedforward.activation,
        normalise=True,
    )


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


FAMILIES = {"granite": granite, "granitemoe": granitemoe}
