"""gpt-oss. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, layer_windows, llama_like, with_experts
from tgi.models.names import FusedExperts
from tgi.models.rope_config import RopeOverride, rope_parameters
from tgi.models.spec import ExpertsSpec, ModelSpec

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


def gpt_oss(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Each head has a score that takes part in the softmax and has no value; experts have biases and limits."""
    bias = reader.flag("attention_bias", True)
    window = reader.size("sliding_window", 128)
    for key in ("experts_per_token", "initial_context_length"):
        reader.get(key)
    spec = llama_like(
        reader,
        override,
        default_positions=131_072,
        default_head_dim=64,
        default_kv_heads=8,
        default_theta=150_000.0,
        default_eps=1e-5,
        qkv_bias=bias,
        attention_out_bias=bias,
        windows=layer_windows(reader, window, every=2),
        rope_parameters=rope_parameters(reader) or YARN,
        names=GPT_OSS_NAMES,
    )
    reader.only("hidden_act", "silu")
    reader.only("swiglu_alpha", 1.702)
    experts = ExpertsSpec(
        count=reader.size("num_local_experts", 128, most=4096),
        top=reader.size("num_experts_per_tok", 4),
        inner=spec.layers[0].feedforward.inner,
        activation="quick_gelu",  # x * sigmoid(1.702 x)
        normalise=True,
        limit=reader.number("swiglu_limit", 7.0),
        bias=True,
    )
    return with_experts(spec.with_layers(attention={"sinks": True}), reader, experts)


FAMILIES = {"gpt_oss": gpt_oss}
