"""Mistral and its kin. Imports no torch."""

from __future__ import annotations

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import layer_windows, llama_like
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import ModelSpec


def mistral(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    reader.only("attention_bias", False)
    reader.only("mlp_bias", False)
    # transformers gives a config without the key a window of 4096; null means none.
    window = reader.size("sliding_window") if reader.get("sliding_window") is not None else None
    if not reader.has("sliding_window"):
        window = 4096
    return llama_like(
        reader, override, default_positions=131_072, default_kv_heads=8, windows=layer_windows(reader, window)
    )


FAMILIES = {"mistral": mistral}
