"""Mixtures of experts: Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE and gpt-oss. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader
from tgi.models.families.qwen import qwen_windows
from tgi.models.families.shared import LLAMA_NAMES, Defaults, experts_of, layer_windows, llama_like, with_experts
from tgi.models.names import FusedExperts
from tgi.models.rope_config import rope_parameters
from tgi.models.spec import ModelSpec

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
GPT_OSS_NAMES = replace(
    LLAMA_NAMES,
    sinks="model.layers.{}.self_attn.sinks",
    router="model.layers.{}.mlp.router",
    expert_up=("model.layers.{}.mlp.experts.gate_up_proj",),
    expert_down="model.layers.{}.mlp.experts.down_proj",
    expert_layout=FusedExperts(transposed_up=True, transposed_down=True, alternate=True),
)
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def mixtral(reader: ConfigReader) -> ModelSpec:
    """Two of eight experts for each token."""
    spec = llama_like(
        reader,
        Defaults(positions=131_072, kv_heads=8, theta=1_000_000.0, eps=1e-5),
        windows=layer_windows(reader, reader.optional_size("sliding_window")),
        names=MIXTRAL_NAMES,
    )
    return every_some(spec, reader, "num_local_experts", 8, spec.layers[0].feedforward.inner, 2, normalise=True)


def qwen2_moe(reader: ConfigReader) -> ModelSpec:
    """Also an expert that is always there, with a weight of its own."""
    spec = llama_like(
        reader,
        Defaults(positions=32_768, kv_heads=16),
        qkv_bias=reader.flag("qkv_bias", True),
        windows=qwen_windows(reader),
        names=MOE_NAMES,
    )
    inner, normalise = reader.size("moe_intermediate_size", 1408), reader.flag("norm_topk_prob", False)
    shared = reader.size("shared_expert_intermediate_size", 5632)
    return every_some(spec, reader, "num_experts", 60, inner, 4, normalise=normalise, shared=shared)


def qwen3_moe(reader: ConfigReader) -> ModelSpec:
    """Qwen3 with experts."""
    spec = llama_like(
        reader,
        Defaults(positions=32_768, kv_heads=4),
        attention_bias=reader.flag("attention_bias", False),
        windows=qwen_windows(reader),
        qk_norm="head",
        names=MOE_NAMES,
    )
    inner, normalise = reader.size("moe_intermediate_size", 768), reader.flag("norm_topk_prob", False)
    key = "num_experts" if reader.get("num_experts") is not None else "num_local_experts"
    return every_some(spec, reader, key, 128, inner, 8, normalise=normalise)


def olmoe(reader: ConfigReader) -> ModelSpec:
    """Queries and keys have one norm over all heads; every layer has experts."""
    spec = llama_like(
        reader,
        Defaults(positions=4096, eps=1e-5),
        attention_bias=reader.flag("attention_bias", False),
        qk_norm="all heads",
        names=MOE_NAMES,
    )
    reader.only("clip_qkv")
    normalise = reader.flag("norm_topk_prob", False)
    return every_some(spec, reader, "num_experts", 64, spec.layers[0].feedforward.inner, 8, normalise=normalise)


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
    experts = experts_of(spec, reader, (count_key, count), top, inner=inner, normalise=normalise, shared=shared)
    step, dense = reader.size("decoder_sparse_step", 1), reader.get("mlp_only_layers", [])
    if not isinstance(dense, list):
        raise ModelError(f"config.json: `mlp_only_layers` must be a list, it is {dense!r}")
    return with_experts(spec, reader, experts, lambda number: number not in dense and (number + 1) % step == 0)


def gpt_oss(reader: ConfigReader) -> ModelSpec:
    """Each head has a score that takes part in the softmax and has no value; experts have biases and limits."""
    bias = reader.flag("attention_bias", True)
    window = reader.size("sliding_window", 128)
    reader.ignore("experts_per_token", "initial_context_length")
    spec = llama_like(
        reader,
        Defaults(positions=131_072, head_dim=64, kv_heads=8, theta=150_000.0, eps=1e-5),
        attention_bias=bias,
        windows=layer_windows(reader, window, every=2),
        rope_parameters=rope_parameters(reader) or YARN,
        names=GPT_OSS_NAMES,
    )
    reader.fixed(hidden_act="silu", swiglu_alpha=1.702)
    experts = experts_of(
        spec,
        reader,
        ("num_local_experts", 128),
        4,
        activation="quick_gelu",  # x * sigmoid(1.702 x)
        normalise=True,
        limit=reader.number("swiglu_limit", 7.0),
        bias=True,
    )
    return with_experts(spec.with_layers(attention={"sinks": True}), reader, experts)


FAMILIES = {"gpt_oss": gpt_oss, "mixtral": mixtral, "olmoe": olmoe, "qwen2_moe": qwen2_moe, "qwen3_moe": qwen3_moe}
