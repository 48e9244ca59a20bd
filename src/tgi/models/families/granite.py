"""Granite. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import llama_like
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import ModelSpec


def granite(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Llama with factors at the embedding, scores, residual and logits."""
    attention_bias = reader.flag("attention_bias", False)
    spec = llama_like(
        reader,
        override,
        default_positions=2048,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        feedforward_bias=reader.flag("mlp_bias", False),
    )
    spec = spec.with_layers(
        attention={"scale": reader.number("attention_multiplier", 1.0)},
        residual_scale=reader.number("residual_multiplier", 1.0),
    )
    return replace(
        spec,
        embedding_scale=reader.number("embedding_multiplier", 1.0),
        logit_scale=1.0 / reader.number("logits_scaling", 1.0),
    )


FAMILIES = {"granite": granite}
