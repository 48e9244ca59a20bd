"""Mixtures of experts: Mixtral, Qwen2-MoE, Qwen3-MoE and OLMoE. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, layer_windows, llama_like, with_experts
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import ExpertsSpec, ModelSpec, QkNormSpec

MIXTRAL_NAMES = replace(
    LLAMA_NAMES,
    router="model.layers.{}.block_sparse_moe.gate",
    expert_up=tuple(f"model.layers.{{}}.block_sparse_moe.experts.{{expert}}.{part}" for part in ("w1", "w3")),
    expert_down="model.layers.{}.block_sparse_moe.experts.{expert}.w2",
)
MOE_NAMES = replace(
    LLAMA_NAMES,
    router="model.layers.{}.mlp.gate",
    expert_up=tuple(f"model.layers.{{}}.mlp.experts.{{expert}}.{part}_proj" for part in ("gate", "up")),
    expert_down="model.layers.{}.mlp.experts.{expert}.down_proj",
    shared_router="model.layers.{}.mlp.shared_expert_gate",
    shared_up=tuple(f"model.layers.{{}}.mlp.shared_expert.{part}_proj" for part in ("gate", "up")),
    shared_down="model.layers.{}.mlp.shared_expert.down_proj",
)


def mixtral(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Two of eight experts for each token."""
    window = None if reader.get("sliding_window") is None else reader.size("sliding_window")
    spec = llama_like(
        reader,
        override,
        default_positions=131_072,
        default_kv_heads=8,
        default_theta=1_000_000.0,
        default_eps=1e-5,
        windows=layer_windows(reader, window),
        names=MIXTRAL_NAMES,
    )
    return every_some(spec, reader, "num_local_experts", 8, spec.layers[0].feedforward.inner, 2, normalise=True)


def qwen2_moe(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Also an expert that is always there, with a weight of its own."""
    spec = llama_like(
        reader,
        override,
        default_positions=32_768,
        default_kv_heads=16,
        qkv_bias=reader.flag("qkv_bias", True),
        windows=_windows(reader),
        names=MOE_NAMES,
    )
    inner, normalise = reader.size("moe_intermediate_size", 1408), reader.flag("norm_topk_prob", False)
    shared = reader.size("shared_expert_intermediate_size", 5632)
    return every_some(spec, reader, "num_experts", 60, inner, 4, normalise=normalise, shared=shared)


def qwen3_moe(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Qwen3 with experts."""
    bias = reader.flag("attention_bias", False)
    spec = llama_like(
        reader,
        override,
        default_positions=32_768,
        default_kv_heads=4,
        qkv_bias=bias,
        attention_out_bias=bias,
        windows=_windows(reader),
        names=MOE_NAMES,
    )
    spec = spec.with_layers(attention={"qk_norm": QkNormSpec(norm=spec.norm)})
    inner, normalise = reader.size("moe_intermediate_size", 768), reader.flag("norm_topk_prob", False)
    key = "num_experts" if reader.get("num_experts") is not None else "num_local_experts"
    return every_some(spec, reader, key, 128, inner, 8, normalise=normalise)


def olmoe(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Queries and keys have one norm over all heads; every layer has experts."""
    bias = reader.flag("attention_bias", False)
    spec = llama_like(
        reader,
        override,
        default_positions=4096,
        default_eps=1e-5,
        qkv_bias=bias,
        attention_out_bias=bias,
        names=MOE_NAMES,
    )
    reader.only("clip_qkv")
    spec = spec.with_layers(attention={"qk_norm": QkNormSpec(norm=spec.norm, over="all heads")})
    normalise = reader.flag("norm_topk_prob", False)
    return every_some(spec, reader, "num_experts", 64, spec.layers[0].feedforward.inner, 8, normalise=normalise)


def _windows(reader: ConfigReader) -> tuple[int | None, ...]:
    first, window = reader.get("max_window_layers", 28), None
    if reader.flag("use_sliding_window", False) and reader.get("sliding_window"):
        window = reader.size("sliding_window")
    reader.get("sliding_window")
    return layer_windows(reader, window, first)


def every_some(
    spec: ModelSpec,
    reader: ConfigReader,
    count_key: str,
    count: int,
    inner: int,
    top: int,
    *,
    normalise: bool,
    shared: int = 0,
) -> ModelSpec:
    """The same model with experts in every `decoder_sparse_step`-th layer, but some."""
    experts = ExpertsSpec(
        count=reader.size(count_key, count, most=4096),
        top=reader.size("num_experts_per_tok", top),
        inner=inner,
        activation=spec.layers[0].feedforward.activation,
        normalise=normalise,
        shared=shared,
    )
    step, dense = reader.size("decoder_sparse_step", 1), reader.get("mlp_only_layers", [])
    if not isinstance(dense, list):
        raise ModelError(f"config.json: `mlp_only_layers` must be a list, it is {dense!r}")
    return with_experts(spec, reader, experts, lambda number: number not in dense and (number + 1) % step == 0)


FAMILIES = {"mixtral": mixtral, "olmoe": olmoe, "qwen2_moe": qwen2_moe, "qwen3_moe": qwen3_moe}
