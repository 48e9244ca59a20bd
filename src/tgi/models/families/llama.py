"""Llama, and what differs from it by little. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import layer_windows, llama_like
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import AttentionSpec, ModelSpec


def llama(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    _no_window(reader)
    attention_bias = reader.flag("attention_bias", False)
    return llama_like(
        reader,
        override,
        default_positions=2048,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        feedforward_bias=reader.flag("mlp_bias", False),
        windows=layer_windows(reader, None),
    )


def _no_window(reader: ConfigReader) -> None:
    """The window of a model that has none: switched off, or as wide as the context."""
    reader.get("max_window_layers")
    window, used = reader.get("sliding_window"), reader.flag("use_sliding_window", True)
    whole = reader.size("max_position_embeddings", 2048)
    if used and window is not None and reader.size("sliding_window") < whole:
        reader.only("use_sliding_window", False)
        reader.only("sliding_window")


def smollm3(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Every fourth layer has no positions."""
    reader.get("max_window_layers")
    attention_bias = reader.flag("attention_bias", False)
    slides = reader.flag("use_sliding_window", False) and reader.get("sliding_window") is not None
    window = reader.size("sliding_window") if slides else None
    layers, interval = reader.size("num_hidden_layers"), reader.size("no_rope_layer_interval", 4)
    turns = reader.get("no_rope_layers") or [int((layer + 1) % interval != 0) for layer in range(layers)]
    reader.get("sliding_window")
    if not isinstance(turns, list) or len(turns) != layers:
        raise ModelError("config.json: `no_rope_layers` must have a number, 0 or 1, for each layer")
    windows = tuple(None if turn else window for turn in turns)
    spec = llama_like(
        reader,
        override,
        default_positions=32_768,
        default_kv_heads=4,
        default_theta=2_000_000.0,
        default_tied=True,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        feedforward_bias=reader.flag("mlp_bias", False),
        windows=windows if reader.get("layer_types") is None else layer_windows(reader, window),
    )

    def without_rope(layer: int, attention: AttentionSpec) -> AttentionSpec:
        return attention if turns[layer] else replace(attention, rope=None)

    return spec.with_attention(without_rope)


FAMILIES = {"llama": llama, "smollm3": smollm3}
