"""Qwen2 and Qwen3. Imports no torch."""

from __future__ import annotations

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import Defaults, layer_windows, llama_like
from tgi.models.spec import ModelSpec


def qwen2(reader: ConfigReader) -> ModelSpec:
    """Biases of q, k and v."""
    reader.fixed(attention_bias=True, mlp_bias=False)
    return llama_like(reader, Defaults(positions=32_768, kv_heads=32), qkv_bias=True, windows=qwen_windows(reader))


def qwen3(reader: ConfigReader) -> ModelSpec:
    """Queries and keys are normalised, head by head."""
    return llama_like(
        reader,
        Defaults(positions=32_768, kv_heads=32, head_dim=128),
        attention_bias=reader.flag("attention_bias", False),
        windows=qwen_windows(reader),
        qk_norm="head",
    )


def qwen_windows(reader: ConfigReader) -> tuple[int | None, ...]:
    """Windows from some layer on, where they are switched on."""
    first, window = reader.get("max_window_layers", 28), None
    if reader.flag("use_sliding_window", False) and (not reader.has("sliding_window") or reader.get("sliding_window")):
        window = reader.size("sliding_window", 4096)
    reader.get("sliding_window")
    return layer_windows(reader, window, first)


FAMILIES = {"qwen2": qwen2, "qwen3": qwen3}
