"""StableLM and StarCoder 2: layer norms with biases around the parts of Llama. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, layer_windows, llama_like
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import ModelSpec, NormSpec, QkNormSpec

STABLELM_NAMES = replace(
    LLAMA_NAMES,
    query_norm="model.layers.{}.self_attn.q_layernorm.norms.{head}",
    key_norm="model.layers.{}.self_attn.k_layernorm.norms.{head}",
)
STARCODER2_NAMES = replace(LLAMA_NAMES, up=("model.layers.{}.mlp.c_fc",), down="model.layers.{}.mlp.c_proj")


def stablelm(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Layer norms; a quarter of each head turns; attention may be beside the feed-forward."""
    spec = llama_like(
        reader,
        override,
        default_positions=4096,
        default_partial=0.25,
        qkv_bias=reader.flag("use_qkv_bias", False),
        norm="layer",
        eps_key="layer_norm_eps",
        default_eps=1e-5,
        norm_bias=True,
        names=STABLELM_NAMES,
    )
    if reader.flag("qk_layernorm", False):
        norm = NormSpec(kind="layer", eps=spec.norm.eps)
        spec = spec.with_layers(attention={"qk_norm": QkNormSpec(norm=norm, over="each head")})
    if reader.flag("use_parallel_residual", False):
        spec = spec.with_layers(parallel=True)
        spec = replace(spec, names=replace(spec.names, feedforward_norm=spec.names.attention_norm))
    return spec


def starcoder2(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Layer norms, biases everywhere, no gate."""
    reader.only("mlp_type", "default")
    reader.only("norm_type", "layer_norm")
    bias = reader.flag("use_bias", True)
    window = None if reader.get("sliding_window") is None else reader.size("sliding_window")
    return llama_like(
        reader,
        override,
        default_positions=4096,
        default_kv_heads=2,
        default_tied=True,
        qkv_bias=bias,
        attention_out_bias=bias,
        feedforward_bias=bias,
        gated=False,
        default_activation="gelu_pytorch_tanh",
        norm="layer",
        eps_key="norm_epsilon",
        default_eps=1e-5,
        norm_bias=True,
        windows=layer_windows(reader, window),
        names=STARCODER2_NAMES,
    )


FAMILIES = {"stablelm": stablelm, "starcoder2": starcoder2}
