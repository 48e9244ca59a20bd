"""Qwen3-Next and Qwen3.5 (text): gated delta nets, and gated attention in every fourth layer. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader
from tgi.models.families.moe import MOE_NAMES, every_some
from tgi.models.families.shared import Defaults, llama_like, with_mixers
from tgi.models.rope_config import rope_parameters
from tgi.models.spec import DeltaSpec, ModelSpec, QkNormSpec

QWEN_NEXT_NAMES = replace(MOE_NAMES, mixer="model.layers.{}.linear_attn", ignored=(*MOE_NAMES.ignored, r"mtp\..*"))


def qwen3_next(reader: ConfigReader) -> ModelSpec:
    """Delta nets whose products alternate by heads, and experts."""
    spec = _with_delta_nets(reader, stacked=True)
    inner, normalise = reader.size("moe_intermediate_size", 512), reader.flag("norm_topk_prob", True)
    shared = reader.size("shared_expert_intermediate_size", 512)
    return every_some(spec, reader, "num_experts", 512, inner, 10, normalise=normalise, shared=shared)


def qwen3_5(reader: ConfigReader) -> ModelSpec:
    """The same with products of their own, and feed-forwards."""
    return _with_delta_nets(reader, stacked=False)


def _with_delta_nets(reader: ConfigReader, *, stacked: bool) -> ModelSpec:
    bias, parameters = reader.flag("attention_bias", False), rope_parameters(reader)
    for key in ("mrope_section", "mrope_interleaved"):  # of images: for text all three positions are the same
        parameters.pop(key, None)
    spec = llama_like(
        reader,
        Defaults(positions=32_768, head_dim=256, kv_heads=2 if stacked else 4, partial=0.25),
        attention_bias=bias,
        rope_parameters=parameters,
        names=QWEN_NEXT_NAMES,
    )
    reader.only("hidden_act", "silu")
    delta = DeltaSpec(
        heads=reader.size("linear_num_value_heads", 32),
        key_heads=reader.size("linear_num_key_heads", 16),
        key_dim=reader.size("linear_key_head_dim", 128),
        value_dim=reader.size("linear_value_head_dim", 128),
        kernel=reader.size("linear_conv_kernel_dim", 4),
        stacked=stacked,
    )
    if delta.heads % delta.key_heads:
        raise ModelError(f"config.json: {delta.heads} heads of values cannot share {delta.key_heads} of keys evenly")
    spec = replace(spec, norm=replace(spec.norm, offset=1.0))
    spec = spec.with_layers(attention={"gated": True, "qk_norm": QkNormSpec(norm=spec.norm)})
    layers, interval = len(spec.layers), reader.size("full_attention_interval", 4)
    usual = ["full_attention" if (layer + 1) % interval == 0 else "linear_attention" for layer in range(layers)]
    return with_mixers(spec, reader.get("layer_types", usual), {"full_attention": None, "linear_attention": delta})


FAMILIES = {"qwen3_5_text": qwen3_5, "qwen3_next": qwen3_next}
