"""Mistral and its kin. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader, positive_number
from tgi.models.families.shared import Defaults, layer_windows, llama_like
from tgi.models.rope_config import rope_parameters
from tgi.models.spec import ModelSpec


def mistral(reader: ConfigReader) -> ModelSpec:
    """All layers may have a window."""
    reader.only("mlp_bias", False)
    return ministral(reader)


def ministral(reader: ConfigReader) -> ModelSpec:
    """Some layers have a window."""
    reader.only("attention_bias", False)
    window = reader.optional_size("sliding_window", 4096)
    return llama_like(reader, Defaults(positions=131_072, kv_heads=8), windows=layer_windows(reader, window))


def ministral3(reader: ConfigReader) -> ModelSpec:
    """Queries grow with the logarithm of their position, period by period of the original context."""
    reader.only("attention_bias", False)
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
        Defaults(positions=262_144, kv_heads=8, head_dim=128, eps=1e-5),
        windows=layer_windows(reader, reader.optional_size("sliding_window")),
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
