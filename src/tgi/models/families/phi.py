"""Phi 1 to 4. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, layer_windows, llama_like
from tgi.models.rope_config import RopeOverride, rope_parameters
from tgi.models.spec import ModelSpec, QkNormSpec

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


FAMILIES = {"phi": phi, "phi3": phi3}
