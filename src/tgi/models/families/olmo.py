"""OLMo 1, 2 and 3. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, layer_windows, llama_like, with_local_rope
from tgi.models.rope_config import RopeOverride, rope_parameters_by_type
from tgi.models.spec import ModelSpec, QkNormSpec

OLMO2_NAMES = replace(
    LLAMA_NAMES,
    attention_norm=None,
    attention_post_norm="model.layers.{}.post_attention_layernorm",
    feedforward_norm=None,
    feedforward_post_norm="model.layers.{}.post_feedforward_layernorm",
)


def olmo(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Norms have no weights."""
    attention_bias = reader.flag("attention_bias", False)
    spec = llama_like(
        reader,
        override,
        default_positions=2048,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        norm="layer",
        default_eps=1e-5,
        eps_key="layer_norm_eps",
    )
    spec = spec.with_layers(attention={"clip": reader.optional_number("clip_qkv", None)})
    return replace(spec, norm=replace(spec.norm, scale=False))


def olmo2(
    reader: ConfigReader,
    override: RopeOverride | None,
    windows: tuple[int | None, ...] | None = None,
    rope_parameters: dict[str, Any] | None = None,
) -> ModelSpec:
    """Norms come after attention and feed-forward, and queries and keys have one over all heads."""
    reader.get("layer_norm_eps")
    attention_bias = reader.flag("attention_bias", False)
    spec = llama_like(
        reader,
        override,
        default_positions=2048,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        default_eps=1e-5,
        windows=windows,
        rope_parameters=rope_parameters,
        names=OLMO2_NAMES,
    )
    return spec.with_layers(attention={"qk_norm": QkNormSpec(norm=spec.norm, over="all heads")})


def olmo3(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Three of four layers have a window, and a rotary embedding without scaling."""
    theta = reader.number("rope_theta", 500_000.0)
    ropes = rope_parameters_by_type(reader, theta, theta)
    windows = layer_windows(reader, reader.size("sliding_window", 4096), full_every=4)
    spec = olmo2(reader, override, windows, ropes["full_attention"])
    return with_local_rope(spec, reader, ropes["sliding_attention"])


FAMILIES = {"olmo": olmo, "olmo2": olmo2, "olmo3": olmo3}
