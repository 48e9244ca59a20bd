"""GLM-4, as first published and as of 0414. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, llama_like
from tgi.models.names import Names
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import ModelSpec

GLM_NAMES = replace(LLAMA_NAMES, up=("model.layers.{}.mlp.gate_up_proj",))
GLM4_NAMES = replace(
    GLM_NAMES,
    attention_post_norm="model.layers.{}.post_self_attn_layernorm",
    feedforward_post_norm="model.layers.{}.post_mlp_layernorm",
)


def glm(reader: ConfigReader, override: RopeOverride | None, names: Names = GLM_NAMES) -> ModelSpec:
    """Half of each head turns, in pairs of neighbours; gate and up are one matrix."""
    return llama_like(
        reader,
        override,
        default_positions=131_072,
        default_head_dim=128,
        default_kv_heads=2,
        default_partial=0.5,
        default_eps=1.5625e-07,
        rope_adjacent=True,
        qkv_bias=reader.flag("attention_bias", True),
        names=names,
    )


def glm4(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """GLM-4 with norms also after attention and feed-forward."""
    return glm(reader, override, GLM4_NAMES)


FAMILIES = {"glm": glm, "glm4": glm4}
