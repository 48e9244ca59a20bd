"""Phi 1 to 4. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader
from tgi.models.families.moe import MIXTRAL_NAMES
from tgi.models.families.shared import (
    LLAMA_NAMES,
    Defaults,
    NormKeys,
    experts_of,
    layer_windows,
    llama_like,
    with_experts,
)
from tgi.models.rope_config import rope_parameters
from tgi.models.spec import ModelSpec

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


def phi(reader: ConfigReader) -> ModelSpec:
    """Attention and feed-forward read one norm; biases everywhere, also of the head."""
    spec = llama_like(
        reader,
        Defaults(positions=2048, partial=0.5, activation="gelu_new", eps=1e-5),
        norm=NormKeys(kind="layer", eps_key="layer_norm_eps", bias=True),
        attention_bias=True,
        feedforward_bias=True,
        gated=False,
        qk_norm="head" if reader.flag("qk_layernorm", False) else None,
        names=PHI_NAMES,
    )
    return replace(spec.with_layers(parallel=True), head_bias=True)


def phi3(reader: ConfigReader) -> ModelSpec:
    """Also Phi-3.5 and Phi-4."""
    reader.fixed(attention_bias=False, mlp_bias=False, lm_head_bias=False, full_attn_mod=1, interpolate_factor=1)
    parameters = rope_parameters(reader)
    for key in ("type", "rope_type"):
        if parameters.get(key) in ("su", "yarn"):  # what longrope was called first
            parameters[key] = "longrope"
    return llama_like(
        reader,
        Defaults(positions=4096, partial=1.0, eps=1e-5),
        windows=layer_windows(reader, reader.optional_size("sliding_window")),
        rope_parameters=parameters,
        names=PHI3_NAMES,
    )


def phimoe(reader: ConfigReader) -> ModelSpec:
    """Layer norms, and two experts chosen one after the other, each weighed among its near rivals."""
    bias, parameters = reader.flag("attention_bias", False), rope_parameters(reader)
    short, long = (parameters.pop(key, None) for key in ("short_mscale", "long_mscale"))
    if short != long:
        raise ModelError(f"config.json: `short_mscale` {short!r} and `long_mscale` {long!r} differ: not supported")
    if short is not None:
        parameters["attention_factor"] = short
    spec = llama_like(
        reader,
        Defaults(positions=131_072, kv_heads=8, theta=1_000_000.0, eps=1e-5),
        norm=NormKeys(kind="layer", bias=True),
        attention_bias=bias,
        windows=layer_windows(reader, reader.optional_size("sliding_window")),
        rope_parameters=parameters,
        names=MIXTRAL_NAMES,
    )
    reader.get("input_jitter_noise")
    reader.only("num_experts_per_tok", 2)
    jitter = reader.number("router_jitter_noise", 0.01)
    count = ("num_local_experts", 16)
    experts = experts_of(spec, reader, count, 2, normalise=False, scores="sparsemixer", jitter=jitter)
    return replace(with_experts(spec, reader, experts), head_bias=reader.flag("lm_head_bias", False))


FAMILIES = {"phi": phi, "phi3": phi3, "phimoe": phimoe}
