"""Mistral and its kin. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader, positive_number
from tgi.models.families.shared import layer_windows, llama_like
from tgi.models.rope_config import RopeOverride, rope_parameters
from tgi.models.spec import ModelSpec


def mistral(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """All layers may have a window."""
    reader.only("attention_bias", False)
    reader.only("mlp_bias", False)
    # transformers gives a config without the key a window of 4096; null means none.
    window = reader.size("sliding_window") if reader.get("sliding_window") is not None else None
    if not reader.has("sliding_window"):
        window = 4096
    return llama_like(
        reader, override, default_positions=131_072, default_kv_heads=8, windows=layer_windows(reader, window)
    )


def ministral(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Some layers have a window."""
    reader.only("attention_bias", False)
    window = reader.size("sliding_window", 4096)
    if reader.has("sliding_window") and reader.get("sliding_window") is None:
        window = None
    return llama_like(
        reader, override, default_positions=131_072, default_kv_heads=8, windows=layer_windows(reader, window)
    )


def ministral3(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Queries grow with the logarithm of their position, period by period of the original context."""
    reader.only("attention_bias", False)
    window = None if reader.get("sliding_window") is None else reader.size("sliding_window")
    parameters = rope_parameters(reader)
    beta, original = (parameters.get(key) for key in ("llama_4_scaling_beta", "original_max_position_embeddings"))
    if beta is None or original is None:
        raise ModelError(
            "config.json: `rope_parameters` lacks `llama_4_scaling_beta` or `original_max_position_embeddings`"
        )
    for key in ("llama_4_scaling_beta", "max_position_embeddings"):
        parameters.pop(key, None)
    spec = llama_like(
        reader,
        override,
        default_positions=262_144,
        default_kv_heads=8,
        default_head_dim=128,
        default_eps=1e-5,
        windows=layer_windows(reader, window),
        rope_parameters=parameters,
    )
    rope = spec.layers[0].attention.rope
    assert rope is not None
    queries = replace(
        rope,
        temperature=positive_number(beta, "llama_4_scaling_beta"),
        original_max_positions=int(positive_number(original, "original_max_position_embeddings")),
    )
    return spec.with_layers(attention={"query_rope": queries})


FAMILIES = {"ministral": ministral, "ministral3": ministral3, "mistral": mistral}
