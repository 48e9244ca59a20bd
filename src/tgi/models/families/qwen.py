"""Qwen2 and Qwen3. Imports no torch."""

from __future__ import annotations

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import layer_windows, llama_like
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import ModelSpec, QkNormSpec


def qwen2(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Biases of q, k and v."""
    reader.only("attention_bias", True)
    reader.only("mlp_bias", False)
    return llama_like(
        reader,
        override,
        default_positions=32_768,
        default_kv_heads=32,
        qkv_bias=True,
        windows=_windows(reader),
    )


def qwen3(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Queries and keys are normalised, head by head."""
    attention_bias = reader.flag("attention_bias", False)
    spec = llama_like(
        reader,
        override,
        default_positions=32_768,
        default_kv_heads=32,
        default_head_dim=128,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        windows=_windows(reader),
    )
    return spec.with_layers(attention={"qk_norm": QkNormSpec(norm=spec.norm)})


def _windows(reader: ConfigReader) -> tuple[int | None, ...]:
    first, window = reader.get("max_window_layers", 28), None
    if reader.flag("use_sliding_window", False) and (not reader.has("sliding_window") or reader.get("sliding_window")):
        window = reader.size("sliding_window", 4096)
    reader.get("sliding_window")
    return layer_windows(reader, window, first)


FAMILIES = {"qwen2": qwen2, "qwen3": qwen3}
