"""The model families: for each a function from config.json to a `DecoderSpec`.

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
from tgi.models.shared_keys import ACTIVATIONS, either, gpt_like, head_dim_of, layer_windows, llama_like, no_rope
from tgi.models.spec import DecoderSpec


def llama(reader: ConfigReader, override: RopeOverride | None) -> DecoderSpec:
    reader.only("sliding_window")
    reader.only("use_sliding_window", False)
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


def mistral(reader: ConfigReader, override: RopeOverride | None) -> DecoderSpec:
    reader.only("attention_bias", False)
    reader.only("mlp_bias", False)
    # transformers gives a config without the key a window of 4096; null means none.
    window = reader.size("sliding_window") if reader.get("sliding_window") is not None else None
    if not reader.has("sliding_window"):
        window = 4096
    return llama_like(reader, override, default_positions=131_072, windows=layer_windows(reader, window, 0))


def qwen2(reader: ConfigReader, override: RopeOverride | None) -> DecoderSpec:
    reader.only("attention_bias", True)
    reader.only("mlp_bias", False)
    window = reader.size("sliding_window", 4096)
    first = reader.get("max_window_layers", 28)
    used = reader.flag("use_sliding_window", False)
    return llama_like(
        reader,
        override,
        default_positions=32_768,
        qkv_bias=True,
        windows=layer_windows(reader, window if used else None, first),
    )


def gpt2(reader: ConfigReader, override: RopeOverride | None) -> DecoderSpec:
    reader.only("scale_attn_by_inverse_layer_idx", False)
    reader.only("reorder_and_upcast_attn", False)
    no_rope(override, "gpt2 has learned positions")
    for key in ("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type"):
        reader.get(key)  # of the classification head, which is not served
    reader.get("summary_use_proj")
    width, heads = reader.size("n_embd"), reader.size("n_head")
    spec = gpt_like(
        reader,
        width=width,
        heads=heads,
        layers=reader.size("n_layer"),
        inner=reader.size("n_inner", 4 * width),
        max_positions=reader.size("n_positions", 1024),
        eps=reader.number("layer_norm_epsilon", 1e-5),
        activation=reader.choice("activation_function", "gelu_new", ACTIVATIONS),
        tied_head=reader.flag("tie_word_embeddings", True),
        names=GPT2_NAMES,
    )
    return spec if reader.flag("scale_attn_weights", True) else replace(spec, attention_scale=1.0)


def gpt_neox(reader: ConfigReader, override: RopeOverride | None) -> DecoderSpec:
    width, heads = reader.size("hidden_size"), reader.size("num_attention_heads")
    head_dim = head_dim_of(width, heads)
    theta, partial = reader.number("rotary_emb_base", 10_000.0), reader.number("rotary_pct", 0.25)
    for key, value in (("rope_theta", theta), ("partial_rotary_factor", partial)):
        if reader.get(key, value) != value:  # transformers 4 wrote both spellings
            raise ModelError(f"config.json: `{key}` contradicts `rotary_emb_base` or `rotary_pct`")
    positions = reader.size("max_position_embeddings", 2048)
    rope, max_positions = rope_spec(reader, head_dim, positions, override, theta=theta, partial=partial)
    attention_bias = reader.flag("attention_bias", True)
    spec = gpt_like(
        reader,
        width=width,
        heads=heads,
        layers=reader.size("num_hidden_layers"),
        inner=reader.size("intermediate_size"),
        max_positions=max_positions,
        eps=reader.number("layer_norm_eps", 1e-5),
        activation=reader.choice("hidden_act", "gelu", ACTIVATIONS),
        tied_head=reader.flag("tie_word_embeddings", False),
        names=GPT_NEOX_NAMES,
    )
    parallel = reader.flag("use_parallel_residual", True)
    return replace(spec, rope=rope, parallel=parallel, qkv_bias=attention_bias, attention_out_bias=attention_bias)


def bloom(reader: ConfigReader, override: RopeOverride | None) -> DecoderSpec:
    reader.only("apply_residual_connection_post_layernorm", False)
    reader.only("slow_but_exact", False)
    no_rope(override, "bloom has ALiBi")
    for key in ("attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi"):
        reader.get(key)  # how its training code computed the same
    for key in ("pretraining_tp", "skip_bias_add", "skip_bias_add_qkv"):
        reader.get(key)
    width, heads = either(reader, "hidden_size", "n_embed"), either(reader, "n_head", "num_attention_heads")
    reader.only("n_inner", 4 * width)
    spec = gpt_like(
        reader,
        width=width,
        heads=heads,
        layers=either(reader, "n_layer", "num_hidden_layers"),
        inner=4 * width,
        max_positions=reader.size("seq_length", 2048),  # of training; ALiBi itself has no limit
        eps=reader.number("layer_norm_epsilon", 1e-5),
        activation="gelu_pytorch_tanh",
        tied_head=reader.flag("tie_word_embeddings", True),
        names=BLOOM_NAMES,
    )
    return replace(spec, alibi=True)


def gemma2(reader: ConfigReader, override: RopeOverride | None) -> DecoderSpec:
    reader.only("use_bidirectional_attention", False)
    attention_bias = reader.flag("attention_bias", False)
    spec = llama_like(
        reader,
        override,
        default_positions=8192,
        default_head_dim=256,
        default_tied=True,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        windows=layer_windows(reader, reader.size("sliding_window", 4096), 0, every=2),
    )
    return replace(
        spec,
        activation=reader.choice("hidden_activation", "gelu_pytorch_tanh", ACTIVATIONS),  # `hidden_act` is unused
        attention_scale=reader.number("query_pre_attn_scalar", 256.0) ** -0.5,
        embedding_scale=spec.hidden_size**0.5,
        norm_offset=1.0,
        attention_soft_cap=reader.optional_number("attn_logit_softcapping", 50.0),
        logit_soft_cap=reader.optional_number("final_logit_softcapping", 30.0),
        names=GEMMA2_NAMES,
    )


Family = Callable[[ConfigReader, RopeOverride | None], DecoderSpec]
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


def spec_from_config(config: dict[str, Any], override: RopeOverride | None = None) -> DecoderSpec:
    """The spec of a checkpoint's config.json. Raises ModelError naming what is not supported."""
    reader = ConfigReader(config)
    model_type = reader.get("model_type")
    if model_type is None:
        raise ModelError("config.json has no `model_type`: could not determine the model's type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise ModelError(f"Unsupported model type {model_type}; supported are {', '.join(sorted(FAMILIES))}")
    architectures = reader.get("architectures", [])
    for name in map(str, architectures if isinstance(architectures, list) else [architectures]):
        if "ForCausalLM" not in name and "LMHead" not in name and not name.endswith("Model"):
            raise ModelError(f"{name} is not a language model; this server generates text")
    reader.get("quantization_config")  # judged by `quant`
    spec = family(reader, override)
    reader.finish()
    return spec


def read_spec(path: Path, override: RopeOverride | None = None) -> DecoderSpec:
    """The spec of a checkpoint directory; reads config.json only."""
    return spec_from_config(read_config(path), override)
