"""Phi 1 to 4. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader
from tgi.models.families.moe import MIXTRAL_NAMES
from tgi.models.families.shared import LLAMA_NAMES, layer_windows, llama_like, with_experts
from tgi.models.rope_config import RopeOverride, rope_parameters
from tgi.models.spec import ExpertsSpec, ModelSpec, QkNormSpec

PHI_NAMES = replace(
    LLAMA_NAMES,
    attention_out="model.layers.{}.self_attn.dense",
    feedforward_norm=LLAMA_NAMES.attention_norm,
    up=("model.layers.{}.mlp.fc1",),
    down="model.layers.{}.mlp.fc2",
    final_norm="model.final_layernorm",
    query_norm="model.layers.{}.self_attn.q_layernorm",
    key_norm="model.layers.{}.self_attn.k_layernorm",
)
PHI3_NAMES = replace(LLAMA_NAMES, qkv=("model.layers.{}.self_attn.qkv_proj",), up=("model.layers.{}.mlp.gate_up_proj",))


def phi(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Attention and feed-forward read one norm; biases everywhere, also of the head."""
    spec = llama_like(
        reader,
        override,
        default_positions=2048,
        default_partial=0.5,
        qkv_bias=True,
        attention_out_bias=True,
        feedforward_bias=True,
        gated=False,
        default_activation="gelu_new",
        norm="layer",
        eps_key="layer_norm_eps",
        default_eps=1e-5,
        norm_bias=True,
        names=PHI_NAMES,
    )
    qk_norm = QkNormSpec(norm=spec.norm) if reader.flag("qk_layernorm", False) else None
    return replace(spec.with_layers(attention={"qk_norm": qk_norm}, parallel=True), head_bias=True)


def phi3(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Also Phi-3.5 and Phi-4."""
    reader.only("attention_bias", False)
    reader.only("mlp_bias", False)
    reader.only("lm_head_bias", False)
    reader.only("full_attn_mod", 1)
    reader.only("interpolate_factor", 1)
    parameters = rope_parameters(reader)
    for key in ("type", "rope_type"):
        if parameters.get(key) in ("su", "yarn"):  # what longrope was called first
            parameters[key] = "longrope"
    window = None if reader.get("sliding_window") is None else reader.size("sliding_window")
    return llama_like(
        reader,
        override,
        default_positions=4096,
        default_partial=1.0,
        default_eps=1e-5,
        windows=layer_windows(reader, window),
        rope_parameters=parameters,
        names=PHI3_NAMES,
    )


def phimoe(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Layer norms, and two experts chosen one after the other, each weighed among its near rivals."""
    bias, parameters = reader.flag("attention_bias", False), rope_parameters(reader)
    short, long = (parameters.pop(key, None) for key in ("short_mscale", "long_mscale"))
    if short != long:
        raise ModelError(f"config.json: `short_mscale` {short!r} and `long_mscale` {long!r} differ: not supported")
    if short is not None:
        parameters["attention_factor"] = short
    window = None if reader.get("sliding_window") is None else reader.size("sliding_window")
    spec = llama_like(
        reader,
        override,
        default_positions=131_072,
        default_kv_heads=8,
        default_theta=1_000_000.0,
        qkv_bias=bias,
        attention_out_bias=bias,
        norm="layer",
        norm_bias=True,
        default_eps=1e-5,
        windows=layer_windows(reader, window),
        rope_parameters=parameters,
        names=MIXTRAL_NAMES,
    )
    reader.get("input_jitter_noise")
    reader.only("num_experts_per_tok", 2)
    experts = ExpertsSpec(
        count=reader.size("num_local_experts", 16, most=4096),
        top=2,
        inner=spec.layers[0].feedforward.inner,
        activation=spec.layers[0].feedforward.activation,
        normalise=False,
        scores="sparsemixer",
        jitter=reader.number("router_jitter_noise", 0.01),
    )
    return replace(with_experts(spec, reader, experts), head_bias=reader.flag("lm_head_bias", False))


FAMILIES = {"phi": phi, "phi3": phi3, "phimoe": phimoe}
