"""ERNIE 4.5. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader
from tgi.models.families.deepseek import DEEPSEEK_NAMES
from tgi.models.families.shared import LLAMA_NAMES, llama_like, with_experts
from tgi.models.names import Names
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import ExpertsSpec, ModelSpec

ERNIE_MOE_NAMES = replace(
    DEEPSEEK_NAMES,
    correction="model.layers.{}.mlp.moe_statics.e_score_correction_bias",
    latent=None,
    ignored=(*LLAMA_NAMES.ignored, r"model\.mtp_.*"),
)


def ernie4_5(
    reader: ConfigReader, override: RopeOverride | None, names: Names = LLAMA_NAMES, default_kv_heads: int = 2
) -> ModelSpec:
    """Pairs that turn are neighbours; one switch for all biases."""
    bias = reader.flag("use_bias", False)
    return llama_like(
        reader,
        override,
        default_positions=131_072,
        default_head_dim=128,
        default_kv_heads=default_kv_heads,
        default_theta=500_000.0,
        default_tied=True,
        default_eps=1e-5,
        rope_adjacent=True,
        qkv_bias=bias,
        attention_out_bias=bias,
        feedforward_bias=bias,
        names=names,
    )


def ernie4_5_moe(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """ERNIE 4.5 with experts in some layers: chosen by their softmax and a learned number, and some always there."""
    reader.only("use_bias", False)
    for key in ("moe_norm_min", "moe_capacity", "moe_gate", "moe_use_aux_free", "num_nextn_predict_layers"):
        reader.get(key)
    spec = ernie4_5(reader, override, ERNIE_MOE_NAMES, 4)
    inner, layers = reader.size("moe_intermediate_size", 1536), len(spec.layers)
    shared = reader.get("moe_num_shared_experts", 2)
    experts = ExpertsSpec(
        count=reader.size("moe_num_experts", 64, most=4096),
        top=reader.size("moe_k", 6),
        inner=inner,
        activation=spec.layers[0].feedforward.activation,
        normalise=True,
        correction=True,
        beside=inner * reader.size("moe_num_shared_experts", 2) if shared else 0,
    )
    first, last = reader.get("moe_layer_start_index", 1), reader.get("moe_layer_end_index", -1)
    step = reader.size("moe_layer_interval", 1)
    if not isinstance(first, int) or not isinstance(last, int):
        raise ModelError("config.json: `moe_layer_start_index` and `moe_layer_end_index` must be numbers of layers")
    last = layers - 1 if last == -1 else last
    return with_experts(spec, reader, experts, lambda number: first <= number <= last and (number + 1) % step == 0)


FAMILIES = {"ernie4_5": ernie4_5, "ernie4_5_moe": ernie4_5_moe}
