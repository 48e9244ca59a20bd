"""Llama 4, without images. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.kernels.rope_spec import RopeSpec
from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, Defaults, experts_of, llama_like, turning_layers, with_experts
from tgi.models.names import FusedExperts
from tgi.models.spec import AttentionSpec, ModelSpec, NormSpec, QkNormSpec

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


def llama4(reader: ConfigReader) -> ModelSpec:
    """Layers with positions see chunks, the others everything; weights multiply the experts' inputs."""
    bias, layers = reader.flag("attention_bias", False), reader.size("num_hidden_layers")
    spec = llama_like(
        reader,
        Defaults(positions=131_072, head_dim=128, kv_heads=8, theta=500_000.0, eps=1e-5),
        rope_adjacent=True,
        attention_bias=bias,
        names=LLAMA4_NAMES,
    )
    inner = spec.layers[0].feedforward.inner
    count = ("num_local_experts", 16)
    experts = experts_of(spec, reader, count, 1, normalise=False, beside=inner, scores="sigmoid", weigh_inputs=True)
    step = reader.size("interleave_moe_layer_step", 1)
    sparse = reader.get("moe_layers", list(range(step - 1, layers, step)))
    if not isinstance(sparse, list):
        raise ModelError(f"config.json: `moe_layers` must be a list, it is {sparse!r}")
    spec = spec.with_layers(feedforward={"inner": reader.size("intermediate_size_mlp", 16_384)})
    spec = _with_positions(spec, reader)
    return with_experts(spec, reader, experts, lambda number: number in sparse)


def _with_positions(spec: ModelSpec, reader: ConfigReader) -> ModelSpec:
    """What layers that turn queries and keys differ in from the others."""
    turns, chunk = turning_layers(reader, len(spec.layers)), reader.optional_size("attention_chunk_size", 8192)
    kinds = ["chunked_attention" if turn and chunk else "full_attention" for turn in turns]
    types = reader.get("layer_types", kinds)
    known = ("chunked_attention", "full_attention")
    if not isinstance(types, list) or len(types) < len(spec.layers) or any(kind not in known for kind in types):
        raise ModelError(f"config.json: `layer_types` must name {' or '.join(known)} for each layer")
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
        attention = replace(attention, chunk=chunk if types[layer] == "chunked_attention" else None)
        if turns[layer]:
            return replace(attention, qk_norm=norm if normed else None)
        return replace(attention, rope=None, query_rope=still if tuned else None)

    return spec.with_attention(change)


FAMILIES = {"llama4_text": llama4}
