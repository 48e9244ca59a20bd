"""Llama 4, without images. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tgi.errors import ModelError
from tgi.kernels.rope_spec import RopeSpec
from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, llama_like, with_experts
from tgi.models.names import FusedExperts
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import AttentionSpec, ExpertsSpec, ModelSpec, NormSpec, QkNormSpec

_FEEDFORWARD = "model.layers.{}.feed_forward"
LLAMA4_NAMES = replace(
    LLAMA_NAMES,
    up=(f"{_FEEDFORWARD}.gate_proj", f"{_FEEDFORWARD}.up_proj"),
    down=f"{_FEEDFORWARD}.down_proj",
    router=f"{_FEEDFORWARD}.router",
    expert_up=(f"{_FEEDFORWARD}.experts.gate_up_proj",),
    expert_down=f"{_FEEDFORWARD}.experts.down_proj",
    expert_layout=FusedExperts(transposed_up=True, transposed_down=True),
    shared_up=(f"{_FEEDFORWARD}.shared_expert.gate_proj", f"{_FEEDFORWARD}.shared_expert.up_proj"),
    shared_down=f"{_FEEDFORWARD}.shared_expert.down_proj",
)


def llama4(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Layers with positions see chunks, the others everything; weights multiply the experts' inputs."""
    bias, layers = reader.flag("attention_bias", False), reader.size("num_hidden_layers")
    spec = llama_like(
        reader,
        override,
        default_positions=131_072,
        default_head_dim=128,
        default_kv_heads=8,
        default_theta=500_000.0,
        default_eps=1e-5,
        rope_adjacent=True,
        qkv_bias=bias,
        attention_out_bias=bias,
        names=LLAMA4_NAMES,
    )
    inner = spec.layers[0].feedforward.inner
    experts = ExpertsSpec(
        count=reader.size("num_local_experts", 16, most=4096),
        top=reader.size("num_experts_per_tok", 1),
        inner=inner,
        activation=spec.layers[0].feedforward.activation,
        normalise=False,
        beside=inner,
        scores="sigmoid",
        weigh_inputs=True,
    )
    step = reader.size("interleave_moe_layer_step", 1)
    sparse = reader.get("moe_layers", list(range(step - 1, layers, step)))
    if not isinstance(sparse, list):
        raise ModelError(f"config.json: `moe_layers` must be a list, it is {sparse!r}")
    spec = spec.with_layers(feedforward={"inner": reader.size("intermediate_size_mlp", 16_384)})
    spec = _with_positions(spec, reader)
    return with_experts(spec, reader, experts, lambda number: number in sparse)


def _with_positions(spec: ModelSpec, reader: ConfigReader) -> ModelSpec:
    """What layers that turn queries and keys differ in from the others."""
    layers, interval = len(spec.layers), reader.size("no_rope_layer_interval", 4)
    turns = reader.get("no_rope_layers") or [int((layer + 1) % interval != 0) for layer in range(layers)]
    _for_each_layer("no_rope_layers", turns, layers)
    chunk = None if _null(reader, "attention_chunk_size") else reader.size("attention_chunk_size", 8192)
    kinds = ["chunked_attention" if turn and chunk else "full_attention" for turn in turns]
    types = reader.get("layer_types", kinds)
    _for_each_layer("layer_types", types, layers)
    norm = QkNormSpec(norm=NormSpec(kind="rms", eps=spec.norm.eps, scale=False), after_rope=True)
    normed, tuned = reader.flag("use_qk_norm", True), reader.flag("attn_temperature_tuning", True)
    head_dim = spec.layers[0].attention.head_dim
    still = RopeSpec(  # turns nothing: only multiplies
        "proportional",
        10_000.0,
        head_dim,
        original_max_positions=reader.size("floor_scale", 8192),
        temperature=reader.number("attn_scale", 0.1),
        first_period=1,
    )

    def change(layer: int, attention: AttentionSpec) -> AttentionSpec:
        if types[layer] not in ("chunked_attention", "full_attention"):
            raise ModelError("config.json: `layer_types` must name chunked_attention or full_attention for each layer")
        attention = replace(attention, chunk=chunk if types[layer] == "chunked_attention" else None)
        if turns[layer]:
            return replace(attention, qk_norm=norm if normed else None)
        return replace(attention, rope=None, query_rope=still if tuned else None)

    return spec.with_attention(change)


def _for_each_layer(key: str, value: Any, layers: int) -> None:
    if not isinstance(value, list) or len(value) < layers:
        raise ModelError(f"config.json: `{key}` must have an entry for each layer")


def _null(reader: ConfigReader, key: str) -> bool:
    return reader.has(key) and reader.get(key) is None


FAMILIES = {"llama4_text": llama4}
