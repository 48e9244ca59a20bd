"""Gemma 1, 2 and 3. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, Defaults, layer_windows, llama_like, with_local_rope
from tgi.models.names import Names
from tgi.models.rope_config import rope_parameters_by_type
from tgi.models.spec import ModelSpec, QkNormSpec

GEMMA2_NAMES = replace(
    LLAMA_NAMES,
    attention_post_norm="model.layers.{}.post_attention_layernorm",
    feedforward_norm="model.layers.{}.pre_feedforward_layernorm",
    feedforward_post_norm="model.layers.{}.post_feedforward_layernorm",
)


def gemma(reader: ConfigReader) -> ModelSpec:
    """Norms around 1, scaled embeddings, GELU."""
    reader.only("use_bidirectional_attention", False)
    # Published configs say `gelu` and mean its approximation by tanh; `hidden_activation`, where it stands, is right.
    legacy = reader.get("hidden_activation") is None and reader.get("hidden_act") == "gelu"
    spec = llama_like(
        reader,
        Defaults(activation="gelu_pytorch_tanh", positions=8192, head_dim=256, kv_heads=16, tied=True),
        activation_key="hidden_act" if reader.get("hidden_activation") is None else "hidden_activation",
        attention_bias=reader.flag("attention_bias", False),
    )
    reader.get("hidden_act")
    spec = _gemma(spec, LLAMA_NAMES)
    return spec.with_layers(feedforward={"activation": "gelu_pytorch_tanh"}) if legacy else spec


def gemma2(reader: ConfigReader) -> ModelSpec:
    """Every second layer has a window; norms also after attention and feed-forward; scores and logits are capped."""
    reader.only("use_bidirectional_attention", False)
    reader.get("hidden_act")  # a leftover of Gemma 1 that no version reads
    reader.get("sliding_window_size")  # another, beside `sliding_window`
    reader.only("sliding_window_pattern", 2)
    spec = llama_like(
        reader,
        Defaults(activation="gelu_pytorch_tanh", positions=8192, head_dim=256, kv_heads=4, tied=True),
        activation_key="hidden_activation",
        attention_bias=reader.flag("attention_bias", False),
        windows=layer_windows(reader, reader.size("sliding_window", 4096), every=2),
    )
    soft_cap = reader.optional_number("attn_logit_softcapping", 50.0)
    return _gemma(_scores(spec.with_layers(attention={"soft_cap": soft_cap}), reader, 30.0), GEMMA2_NAMES)


def gemma3(reader: ConfigReader) -> ModelSpec:
    """Of six layers five have a window, and a rotary embedding of their own."""
    reader.only("use_bidirectional_attention", False)
    reader.get("cache_implementation")
    pattern = reader.size("sliding_window_pattern", reader.size("_sliding_window_pattern", 6))
    ropes = rope_parameters_by_type(reader, reader.number("rope_local_base_freq", 10_000.0), 1_000_000.0)
    spec = llama_like(
        reader,
        Defaults(activation="gelu_pytorch_tanh", positions=131_072, head_dim=256, kv_heads=4, tied=True),
        activation_key="hidden_activation",
        attention_bias=reader.flag("attention_bias", False),
        windows=layer_windows(reader, reader.size("sliding_window", 4096), full_every=pattern),
        rope_parameters=ropes["full_attention"],
    )
    reader.get("hidden_act")
    reader.only("attn_logit_softcapping")
    spec = with_local_rope(_scores(spec, reader, None), reader, ropes["sliding_attention"])
    spec = _gemma(spec, GEMMA2_NAMES)
    return spec.with_layers(attention={"qk_norm": QkNormSpec(norm=spec.norm)})


def _scores(spec: ModelSpec, reader: ConfigReader, logit_cap: float | None) -> ModelSpec:
    """The scale of scores, and the cap of logits with its default."""
    spec = spec.with_layers(attention={"scale": reader.number("query_pre_attn_scalar", 256.0) ** -0.5})
    return replace(spec, logit_soft_cap=reader.optional_number("final_logit_softcapping", logit_cap))


def _gemma(spec: ModelSpec, names: Names) -> ModelSpec:
    return replace(
        spec,
        embedding_scale=spec.hidden_size**0.5,
        embedding_scale_rounded=True,
        norm=replace(spec.norm, offset=1.0),
        names=names,
    )


FAMILIES = {"gemma": gemma, "gemma2": gemma2, "gemma3_text": gemma3}
