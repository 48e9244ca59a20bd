"""The model families: for each a function from config.json to a `ModelSpec`.

Owns what distinguishes families; tensor names are in `names`, the arithmetic is `decoder`'s. A config key
that changes the maths is consumed here or refused by name. Called by the loader, and without torch by the
memory plan. How to add one: docs/adding-a-model.md. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader, read_config
from tgi.models.names import BLOOM_NAMES, GEMMA2_NAMES, GPT2_NAMES, GPT_NEOX_NAMES
from tgi.models.rope_config import RopeOverride, rope_spec
from tgi.models.shared_keys import (
    MAX_LAYERS,
    activation_of,
    either,
    gpt_like,
    head_dim_of,
    layer_windows,
    llama_like,
    no_rope,
)
from tgi.models.spec import ModelSpec
from tgi.untrusted import printable


def llama(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    _no_window(reader)
    attention_bias = reader.flag("attention_bias", False)
    return llama_like(
        reader,
        override,
        default_positions=2048,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        feedforward_bias=reader.flag("mlp_bias", False),
        windows=layer_windows(reader, None, 0),
    )


def _no_window(reader: ConfigReader) -> None:
    """The window of a model that has none: switched off, or as wide as the context."""
    reader.get("max_window_layers")
    window, used = reader.get("sliding_window"), reader.flag("use_sliding_window", True)
    whole = reader.size("max_position_embeddings", 2048)
    if used and window is not None and reader.size("sliding_window") < whole:
        reader.only("use_sliding_window", False)
        reader.only("sliding_window")


def mistral(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    reader.only("attention_bias", False)
    reader.only("mlp_bias", False)
    # transformers gives a config without the key a window of 4096; null means none.
    window = reader.size("sliding_window") if reader.get("sliding_window") is not None else None
    if not reader.has("sliding_window"):
        window = 4096
    return llama_like(
        reader, override, default_positions=131_072, default_kv_heads=8, windows=layer_windows(reader, window, 0)
    )


def qwen2(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    reader.only("attention_bias", True)
    reader.only("mlp_bias", False)
    first = reader.get("max_window_layers", 28)
    window = None
    if reader.flag("use_sliding_window", False) and (not reader.has("sliding_window") or reader.get("sliding_window")):
        window = reader.size("sliding_window", 4096)
    reader.get("sliding_window")
    return llama_like(
        reader,
        override,
        default_positions=32_768,
        default_kv_heads=32,
        qkv_bias=True,
        windows=layer_windows(reader, window, first),
    )


def gpt2(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    reader.only("scale_attn_by_inverse_layer_idx", False)
    reader.get("reorder_and_upcast_attn")  # the same in another order and in float32, as scores are here anyway
    no_rope(override, "gpt2 has learned positions")
    for key in ("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type"):
        reader.get(key)  # of the classification head, which is not served
    reader.get("summary_use_proj")
    width, heads = either(reader, "n_embd", "hidden_size"), either(reader, "n_head", "num_attention_heads")
    spec = gpt_like(
        reader,
        width=width,
        heads=heads,
        layers=either(reader, "n_layer", "num_hidden_layers", most=MAX_LAYERS),
        inner=reader.size("n_inner", 4 * width),
        max_positions=either(reader, "n_positions", "max_position_embeddings", 1024),
        eps=reader.number("layer_norm_epsilon", 1e-5),
        activation=activation_of(reader, "activation_function", "gelu_new"),
        tied_head=reader.flag("tie_word_embeddings", True),
        names=GPT2_NAMES,
    )
    return spec if reader.flag("scale_attn_weights", True) else spec.with_layers(attention={"scale": 1.0})


def gpt_neox(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    width, heads = reader.size("hidden_size"), reader.size("num_attention_heads")
    head_dim = head_dim_of(width, heads)
    theta = _either_number(reader, "rotary_emb_base", "rope_theta", 10_000.0)
    partial = _either_number(reader, "rotary_pct", "partial_rotary_factor", 0.25)
    positions = reader.size("max_position_embeddings", 2048)
    rope, max_positions = rope_spec(reader, head_dim, positions, override, theta=theta, partial=partial)
    attention_bias = reader.flag("attention_bias", True)
    spec = gpt_like(
        reader,
        width=width,
        heads=heads,
        layers=reader.size("num_hidden_layers", most=MAX_LAYERS),
        inner=reader.size("intermediate_size"),
        max_positions=max_positions,
        eps=reader.number("layer_norm_eps", 1e-5),
        activation=activation_of(reader, "hidden_act", "gelu"),
        tied_head=reader.flag("tie_word_embeddings", False),
        names=GPT_NEOX_NAMES,
    )
    parallel = reader.flag("use_parallel_residual", True)
    attention = {"rope": rope, "qkv_bias": attention_bias, "out_bias": attention_bias}
    return spec.with_layers(attention=attention, parallel=parallel)


def _either_number(reader: ConfigReader, key: str, other: str, default: float) -> float:
    """A number under its old or its new name; transformers 4 wrote both."""
    new = reader.number(other, default) if reader.get(other) is not None else None
    number = reader.number(key, default if new is None else new)
    if new is not None and new != number:
        raise ModelError(f"config.json: `{other}` contradicts `{key}`")
    return number


def bloom(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    reader.only("apply_residual_connection_post_layernorm", False)
    reader.only("slow_but_exact", False)  # transformers then leaves biases out
    no_rope(override, "bloom has ALiBi")
    for key in ("attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi"):
        reader.get(key)  # how its training code computed the same
    for key in ("skip_bias_add", "skip_bias_add_qkv"):
        reader.get(key)
    width, heads = either(reader, "hidden_size", "n_embed"), either(reader, "n_head", "num_attention_heads")
    reader.only("n_inner", 4 * width)
    spec = gpt_like(
        reader,
        width=width,
        heads=heads,
        layers=either(reader, "n_layer", "num_hidden_layers", most=MAX_LAYERS),
        inner=4 * width,
        max_positions=reader.size("seq_length", 2048),  # of training; ALiBi itself has no limit
        eps=reader.number("layer_norm_epsilon", 1e-5),
        activation="gelu_pytorch_tanh",
        tied_head=reader.flag("tie_word_embeddings", True),
        names=BLOOM_NAMES,
    )
    return spec.with_layers(attention={"alibi": True})


def gemma2(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    reader.only("use_bidirectional_attention", False)
    attention_bias = reader.flag("attention_bias", False)
    reader.get("hidden_act")  # a leftover of Gemma 1 that no version reads
    reader.get("sliding_window_size")  # another, beside `sliding_window`
    reader.only("sliding_window_pattern", 2)
    spec = llama_like(
        reader,
        override,
        activation_key="hidden_activation",
        default_activation="gelu_pytorch_tanh",
        default_positions=8192,
        default_head_dim=256,
        default_kv_heads=4,
        default_tied=True,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        windows=layer_windows(reader, reader.size("sliding_window", 4096), 0, every=2),
    )
    scale = reader.number("query_pre_attn_scalar", 256.0) ** -0.5
    soft_cap = reader.optional_number("attn_logit_softcapping", 50.0)
    return replace(
        spec.with_layers(attention={"scale": scale, "soft_cap": soft_cap}),
        embedding_scale=spec.hidden_size**0.5,
        norm_offset=1.0,
        logit_soft_cap=reader.optional_number("final_logit_softcapping", 30.0),
        names=GEMMA2_NAMES,
    )


Family = Callable[[ConfigReader, RopeOverride | None], ModelSpec]
FAMILIES: dict[str, Family] = {
    "bloom": bloom,
    "gemma2": gemma2,
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "llama": llama,
    "mistral": mistral,
    "qwen2": qwen2,
}
"""`model_type` of config.json -> family."""


def spec_from_config(config: dict[str, Any], override: RopeOverride | None = None) -> ModelSpec:
    """The spec of a checkpoint's config.json. Raises ModelError naming what is not supported."""
    reader = ConfigReader(config)
    model_type = reader.get("model_type")
    if model_type is None:
        raise ModelError("config.json has no `model_type`: could not determine the model's type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise ModelError(f"Unsupported model type {printable(model_type)}; supported are {', '.join(sorted(FAMILIES))}")
    architectures = reader.get("architectures", [])
    for name in map(str, architectures if isinstance(architectures, list) else [architectures]):
        if "ForCausalLM" not in name and "LMHead" not in name and not name.endswith("Model"):
            raise ModelError(f"{printable(name)} is not a language model; this server generates text")
    reader.get("quantization_config")  # judged by `quant`
    spec = family(reader, override)
    reader.finish()
    return spec


def read_spec(path: Path, override: RopeOverride | None = None) -> ModelSpec:
    """The spec of a checkpoint directory; reads config.json only."""
    return spec_from_config(read_config(path), override)
