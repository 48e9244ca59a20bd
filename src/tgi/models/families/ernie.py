"""ERNIE 4.5. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader
from tgi.models.families.deepseek import DEEPSEEK_NAMES
from tgi.models.families.shared import LLAMA_NAMES, Defaults, experts_of, llama_like, with_experts
from tgi.models.names import Names
from tgi.models.spec import ModelSpec

ERNIE_MOE_NAMES = replace(
    DEEPSEEK_NAMES,
    correction="model.layers.{}.mlp.moe_statics.e_score_correction_bias",
    latent=None,
    ignored=(*LLAMA_NAMES.ignored, r"model\.mtp_.*"),
)


def ernie4_5(reader: ConfigReader, names: Names = LLAMA_NAMES, default_kv_heads: int = 2) -> ModelSpec:
    """Pairs that turn are neighbours; one switch for all biases."""
    bias = reader.flag("use_bias", False)
    return llama_like(
        reader,
        Defaults(positions=131_072, head_dim=128, kv_heads=default_kv_heads, theta=500_000.0, tied=True, eps=1e-5),
        rope_adjacent=True,
        attention_bias=bias,
        feedforward_bias=bias,
        names=names,
    )


def ernie4_5_moe(reader: ConfigReader) -> ModelSpec:
    """ERNIE 4.5 with experts in some layers: chosen by their softmax and a learned number, and some always there."""
    reader.only("use_bias", False)
    reader.ignore("moe_norm_min", "moe_capacity", "moe_gate", "moe_use_aux_free", "num_nextn_predict_layers")
    spec = ernie4_5(reader, ERNIE_MOE_NAMES, 4)
    inner, layers = reader.size("moe_intermediate_size", 1536), len(spec.layers)
    shared = reader.get("moe_num_shared_experts", 2)
    beside = inner * reader.size("moe_num_shared_experts", 2) if shared else 0
    count, more = ("moe_num_experts", 64), {"inner": inner, "beside": beside, "correction": True}
    experts = experts_of(spec, reader, count, ("moe_k", 6), normalise=True, **more)
    first, last = reader.get("moe_layer_start_index", 1), reader.get("moe_layer_end_index", -1)
    step = reader.size("moe_layer_interval", 1)
    if not isinstance(first, int) or not isinstance(last, int):
        raise ModelError("config.json: `moe_layer_start_index` and `moe_layer_end_index` must be numbers of layers")
    last = layers - 1 if last == -1 else last
    return with_experts(spec, reader, experts, lambda number: first <= number <= last and (number + 1) % step == 0)


FAMILIES = {"ernie4_5": ernie4_5, "ernie4_5_moe": ernie4_5_moe}
