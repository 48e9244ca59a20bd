"""Llama, and what differs from it by little. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader, positive_number
from tgi.models.families.shared import (
    LLAMA_NAMES,
    MAX_LAYERS,
    Defaults,
    alibi_slopes,
    layer_windows,
    llama_like,
    no_rope,
    turning_layers,
)
from tgi.models.rope_config import rope_parameters
from tgi.models.spec import ModelSpec, QkNormSpec

HUNYUAN_NAMES = replace(
    LLAMA_NAMES,
    query_norm="model.layers.{}.self_attn.query_layernorm",
    key_norm="model.layers.{}.self_attn.key_layernorm",
)
BAICHUAN_NAMES = replace(LLAMA_NAMES, qkv=("model.layers.{}.self_attn.W_pack",))
SECOND_VOCABULARY = 125_696
"""Size of the vocabulary of the second generation, the only key in which its configs differ."""


def llama(reader: ConfigReader) -> ModelSpec:
    """Llama 1 to 3, with every rope scaling."""
    _no_window(reader)
    return llama_like(
        reader,
        Defaults(positions=2048),
        attention_bias=reader.flag("attention_bias", False),
        feedforward_bias=reader.flag("mlp_bias", False),
        windows=layer_windows(reader, None),
    )


def _no_window(reader: ConfigReader) -> None:
    """The window of a model that has none: switched off, or as wide as the context."""
    reader.get("max_window_layers")
    window, used = reader.get("sliding_window"), reader.flag("use_sliding_window", True)
    whole = reader.size("max_position_embeddings", 2048)
    if used and window is not None and reader.size("sliding_window") < whole:
        reader.only("use_sliding_window", False)
        reader.only("sliding_window")


def smollm3(reader: ConfigReader) -> ModelSpec:
    """Every fourth layer has no positions."""
    reader.get("max_window_layers")
    slides = reader.flag("use_sliding_window", False) and reader.get("sliding_window") is not None
    window = reader.size("sliding_window") if slides else None
    turns = turning_layers(reader, reader.size("num_hidden_layers", most=MAX_LAYERS))
    reader.get("sliding_window")
    windows = tuple(None if turn else window for turn in turns)
    spec = llama_like(
        reader,
        Defaults(positions=32_768, kv_heads=4, theta=2_000_000.0, tied=True),
        attention_bias=reader.flag("attention_bias", False),
        feedforward_bias=reader.flag("mlp_bias", False),
        windows=windows if reader.get("layer_types") is None else layer_windows(reader, window),
    )
    return spec.without_rope(lambda layer, _: not turns[layer])


def helium(reader: ConfigReader) -> ModelSpec:
    """Pairs that turn are neighbours."""
    return llama_like(
        reader,
        Defaults(positions=4096, head_dim=128, kv_heads=20, theta=100_000.0, eps=1e-8),
        rope_adjacent=True,
        qkv_bias=reader.flag("attention_bias", False),
        feedforward_bias=reader.flag("mlp_bias", False),
    )


def seed_oss(reader: ConfigReader) -> ModelSpec:
    """Biases of q, k and v, and a switch of its own for that of the output."""
    return llama_like(
        reader,
        Defaults(positions=524_288, head_dim=128, kv_heads=8),
        qkv_bias=reader.flag("attention_bias", True),
        attention_out_bias=reader.flag("attention_out_bias", False),
        feedforward_bias=reader.flag("mlp_bias", False),
    )


def hunyuan(reader: ConfigReader) -> ModelSpec:
    """Queries and keys are normalised after they are turned, by angles whose base has a factor."""
    reader.only("use_qk_norm", True)
    reader.ignore("eod_token_id", "im_start_id", "im_end_id", "im_newline_id", "text_start_id", "text_end_id")
    reader.ignore("sep_token", "org_vocab_size", "attention_head_dim", "mask_init_id", "add_classification_head")
    parameters = rope_parameters(reader)
    width, heads = reader.size("hidden_size"), reader.size("num_attention_heads")
    head_dim = reader.size("head_dim", max(width // heads, 1))
    if alpha := parameters.pop("alpha", None):  # what they call dynamic depends on no length
        theta = positive_number(parameters.get("rope_theta") or reader.get("rope_theta", 10_000.0), "rope_theta")
        stretch = positive_number(alpha, "alpha") ** (head_dim / max(head_dim - 2, 1))
        parameters = {"rope_type": "default", "rope_theta": theta * stretch}
    spec = llama_like(
        reader,
        Defaults(positions=2048, eps=1e-5),
        attention_bias=reader.flag("attention_bias", False),
        rope_parameters=parameters,
        names=HUNYUAN_NAMES,
    )
    return spec.with_layers(attention={"qk_norm": QkNormSpec(norm=spec.norm, after_rope=True)})


def internlm3(reader: ConfigReader) -> ModelSpec:
    """Llama with a switch of its own for the biases of q, k and v."""
    attention_bias, bias = reader.flag("attention_bias", False), reader.flag("bias", False)
    return llama_like(
        reader,
        Defaults(positions=32_768, head_dim=128, kv_heads=2, eps=1e-5),
        qkv_bias=reader.flag("qkv_bias", attention_bias),
        attention_out_bias=attention_bias or bias,
        feedforward_bias=reader.flag("mlp_bias", bias),
    )


def baichuan(reader: ConfigReader) -> ModelSpec:
    """Llama with q, k and v in one matrix. Configs of those with ALiBi have no number of positions."""
    positions = reader.get("max_position_embeddings")
    trained = reader.size("model_max_length", 4096)
    spec = llama_like(reader, Defaults(positions=trained), names=BAICHUAN_NAMES)
    if positions is None:
        no_rope(reader, "this model has ALiBi")
        slopes = alibi_slopes(spec.layers[0].attention.heads)
        spec = spec.with_layers(attention={"rope": None, "slopes": slopes})
    return replace(spec, head_of_unit_rows=spec.vocab_size == SECOND_VOCABULARY)


FAMILIES = {
    "baichuan": baichuan,
    "helium": helium,
    "hunyuan_v1_dense": hunyuan,
    "internlm3": internlm3,
    "llama": llama,
    "seed_oss": seed_oss,
    "smollm3": smollm3,
}
