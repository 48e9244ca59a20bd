"""Gemma 4. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader
from tgi.models.families.gemma import GEMMA2_NAMES
from tgi.models.families.shared import Defaults, experts_of, layer_windows, llama_like, with_experts, with_local_rope
from tgi.models.names import BesideDenseNames, FusedExperts, LayerInputNames
from tgi.models.rope_config import rope_parameters_by_type, rope_spec
from tgi.models.spec import ModelSpec, QkNormSpec

GEMMA4_NAMES = replace(
    GEMMA2_NAMES,
    layer_scale="model.layers.{}.layer_scalar",
    router="model.layers.{}.router.proj",
    expert_up=("model.layers.{}.experts.gate_up_proj",),
    expert_down="model.layers.{}.experts.down_proj",
    expert_layout=FusedExperts(),
    beside_dense=BesideDenseNames(
        dense_post_norm="model.layers.{}.post_feedforward_layernorm_1",
        norm="model.layers.{}.pre_feedforward_layernorm_2",
        post_norm="model.layers.{}.post_feedforward_layernorm_2",
        router_scale="model.layers.{}.router.scale",
        expert_scales="model.layers.{}.router.per_expert_scale",
    ),
)
LAYER_INPUTS = LayerInputNames(
    table="model.embed_tokens_per_layer",
    product="model.per_layer_model_projection",
    norm="model.per_layer_projection_norm",
    gate="model.layers.{}.per_layer_input_gate",
    out="model.layers.{}.per_layer_projection",
    post_norm="model.layers.{}.post_per_layer_input_norm",
)


def gemma4(reader: ConfigReader) -> ModelSpec:
    """Layers without a window have larger heads; the last ones use keys of others; layers read inputs of their own."""
    reader.only("use_bidirectional_attention", "vision")  # of images, which are not served
    ropes = rope_parameters_by_type(reader, 10_000.0, 1_000_000.0)
    if "rope_type" not in ropes["full_attention"]:
        ropes["full_attention"] |= {"rope_type": "proportional", "partial_rotary_factor": 0.25}
    windows = layer_windows(reader, reader.size("sliding_window", 512), full_every=6)
    spec = llama_like(
        reader,
        Defaults(activation="gelu_pytorch_tanh", positions=131_072, head_dim=256, kv_heads=4, tied=True),
        activation_key="hidden_activation",
        attention_bias=reader.flag("attention_bias", False),
        windows=(*windows[:-1], None),
        rope_parameters=ropes["full_attention"],
        names=GEMMA4_NAMES,
    )
    qk_norm, value_norm = QkNormSpec(norm=spec.norm), replace(spec.norm, scale=False)
    spec = spec.with_layers(attention={"scale": 1.0, "qk_norm": qk_norm, "value_norm": value_norm}, learned_scale=True)
    spec = with_local_rope(spec, reader, ropes["sliding_attention"])
    heads = _global_heads(reader, spec)
    head_dim = heads.size("head_dim", 512)
    kv_heads = heads.size("num_key_value_heads", spec.layers[0].attention.kv_heads)
    rope, _ = rope_spec(reader, head_dim, spec.max_positions, parameters=ropes["full_attention"])
    alone = reader.flag("attention_k_eq_v", False)
    full: dict[str, Any] = {"head_dim": head_dim, "kv_heads": kv_heads, "rope": rope, "keys_are_values": alone}
    spec = spec.with_attention(lambda _, attention: attention if attention.window else replace(attention, **full))
    spec = _with_layer_inputs(_with_shared_keys(spec, reader), reader)
    return replace(
        _with_experts(spec, reader),
        embedding_scale=spec.hidden_size**0.5,
        embedding_scale_rounded=True,
        logit_soft_cap=reader.optional_number("final_logit_softcapping", None),
    )


def _global_heads(reader: ConfigReader, spec: ModelSpec) -> ConfigReader:
    """What layers without a window differ in, which configs say of all of them or of each."""
    alone = reader.flag("attention_k_eq_v", False)
    kv_heads = reader.get("num_global_key_value_heads") if alone else None
    of_all = {"head_dim": reader.get("global_head_dim"), "num_key_value_heads": kv_heads}
    full = [number for number, layer in enumerate(spec.layers) if layer.attention.window is None]
    given = reader.get("per_layer_config")
    if given is None:
        return ConfigReader(of_all)
    named = sorted(int(key) for key in map(str, given) if key.isdecimal()) if isinstance(given, dict) else None
    if not given or named != full:
        raise ModelError("config.json: `per_layer_config` must be about the layers without a window")
    first, *others = given.values()
    if not isinstance(first, dict) or any(one != first for one in others):
        raise ModelError("config.json: `per_layer_config` must say the same of all layers without a window")
    return ConfigReader(first)


def _with_shared_keys(spec: ModelSpec, reader: ConfigReader) -> ModelSpec:
    """The last layers use the keys and values of the last layer of their kind before them."""
    count, layers = reader.get("num_kv_shared_layers", 0), spec.layers
    wide = reader.flag("use_double_wide_mlp", False)
    if not isinstance(count, int) or not 0 <= count < len(layers):
        raise ModelError(f"config.json: `num_kv_shared_layers` must be less than {len(layers)} layers, it is {count!r}")
    first, changed = len(layers) - count, list(layers[: len(layers) - count])
    for layer in layers[first:]:
        owners = [i for i in range(first) if layers[i].attention.window == layer.attention.window]
        if not owners:
            raise ModelError("config.json: `num_kv_shared_layers` leaves no layer of some kind with keys of its own")
        feedforward = replace(layer.feedforward, inner=layer.feedforward.inner * (2 if wide else 1))
        attention = replace(layer.attention, keys_of=owners[-1])
        changed.append(replace(layer, attention=attention, feedforward=feedforward))
    others = r"model\.layers\.({})\.self_attn\.(k_proj|v_proj|k_norm|v_norm)\..*"
    unused = (others.format("|".join(map(str, range(first, len(layers))))),) if count else ()
    names = replace(spec.names, ignored=(*spec.names.ignored, *unused))
    return replace(spec, layers=tuple(changed), names=names)


def _with_layer_inputs(spec: ModelSpec, reader: ConfigReader) -> ModelSpec:
    if reader.get("hidden_size_per_layer_input") == 0:
        reader.ignore("vocab_size_per_layer_input")
        return spec
    reader.only("vocab_size_per_layer_input", spec.vocab_size)
    size = reader.size("hidden_size_per_layer_input", 256)
    return replace(spec, layer_inputs=size, names=replace(spec.names, layer_inputs=LAYER_INPUTS))


def _with_experts(spec: ModelSpec, reader: ConfigReader) -> ModelSpec:
    if not reader.flag("enable_moe_block", False):
        reader.ignore("num_experts", "top_k_experts", "moe_intermediate_size")
        return spec
    more = {"inner": reader.size("moe_intermediate_size"), "beside_dense": True}
    experts = experts_of(spec, reader, ("num_experts", None), ("top_k_experts", None), normalise=True, **more)
    return with_experts(spec, reader, experts)


FAMILIES = {"gemma4_text": gemma4}
