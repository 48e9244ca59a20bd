"""Llama, and what differs from it by little. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader, positive_number
from tgi.models.families.shared import LLAMA_NAMES, layer_windows, llama_like
from tgi.models.rope_config import RopeOverride, rope_parameters
from tgi.models.spec import AttentionSpec, ModelSpec, QkNormSpec

HUNYUAN_NAMES = replace(
    LLAMA_NAMES,
    query_norm="model.layers.{}.self_attn.query_layernorm",
    key_norm="model.layers.{}.self_attn.key_layernorm",
)


def llama(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Llama 1 to 3, with every rope scaling."""
    _no_window(reader)
    attention_bias = reader.flag("attention_bias", False)
    return llama_like(
        reader,
        override,
        default_positions=2048,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
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


def smollm3(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Every fourth layer has no positions."""
    reader.get("max_window_layers")
    attention_bias = reader.flag("attention_bias", False)
    slides = reader.flag("use_sliding_window", False) and reader.get("sliding_window") is not None
    window = reader.size("sliding_window") if slides else None
    layers, interval = reader.size("num_hidden_layers"), reader.size("no_rope_layer_interval", 4)
    turns = reader.get("no_rope_layers") or [int((layer + 1) % interval != 0) for layer in range(layers)]
    reader.get("sliding_window")
    if not isinstance(turns, list) or len(turns) != layers:
        raise ModelError("config.json: `no_rope_layers` must have a number, 0 or 1, for each layer")
    windows = tuple(None if turn else window for turn in turns)
    spec = llama_like(
        reader,
        override,
        default_positions=32_768,
        default_kv_heads=4,
        default_theta=2_000_000.0,
        default_tied=True,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        feedforward_bias=reader.flag("mlp_bias", False),
        windows=windows if reader.get("layer_types") is None else layer_windows(reader, window),
    )

    def without_rope(layer: int, attention: AttentionSpec) -> AttentionSpec:
        return attention if turns[layer] else replace(attention, rope=None)

    return spec.with_attention(without_rope)


def helium(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Pairs that turn are neighbours."""
    return llama_like(
        reader,
        override,
        default_positions=4096,
        default_head_dim=128,
        default_kv_heads=20,
        default_theta=100_000.0,
        default_eps=1e-8,
        rope_adjacent=True,
        qkv_bias=reader.flag("attention_bias", False),
        feedforward_bias=reader.flag("mlp_bias", False),
    )


def seed_oss(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Biases of q, k and v, and a switch of its own for that of the output."""
    return llama_like(
        reader,
        override,
        default_positions=524_288,
        default_head_dim=128,
        default_kv_heads=8,
        qkv_bias=reader.flag("attention_bias", True),
        attention_out_bias=reader.flag("attention_out_bias", False),
        feedforward_bias=reader.flag("mlp_bias", False),
    )


def hunyuan(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Queries and keys are normalised after they are turned, by angles whose base has a factor."""
    attention_bias = reader.flag("attention_bias", False)
    reader.only("use_qk_norm", True)
    for key in ("eod_token_id", "im_start_id", "im_end_id", "im_newline_id", "text_start_id", "text_end_id"):
        reader.get(key)
    for key in ("sep_token", "org_vocab_size", "attention_head_dim", "mask_init_id", "add_classification_head"):
        reader.get(key)
    parameters = rope_parameters(reader)
    width, heads = reader.size("hidden_size"), reader.size("num_attention_heads")
    head_dim = reader.size("head_dim", max(width // heads, 1))
    if alpha := parameters.pop("alpha", None):  # what they call dynamic depends on no length
        theta = positive_number(parameters.get("rope_theta") or reader.get("rope_theta", 10_000.0), "rope_theta")
        stretch = positive_number(alpha, "alpha") ** (head_dim / max(head_dim - 2, 1))
        parameters = {"rope_type": "default", "rope_theta": theta * stretch}
    spec = llama_like(
        reader,
        override,
        default_positions=2048,
        default_eps=1e-5,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        rope_parameters=parameters,
        names=HUNYUAN_NAMES,
    )
    return spec.with_layers(attention={"qk_norm": QkNormSpec(norm=spec.norm, after_rope=True)})


def internlm3(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Llama with a switch of its own for the biases of q, k and v."""
    attention_bias, bias = reader.flag("attention_bias", False), reader.flag("bias", False)
    return llama_like(
        reader,
        override,
        default_positions=32_768,
        default_head_dim=128,
        default_kv_heads=2,
        default_eps=1e-5,
        qkv_bias=reader.flag("qkv_bias", attention_bias),
        attention_out_bias=attention_bias or bias,
        feedforward_bias=reader.flag("mlp_bias", bias),
    )


FAMILIES = {
    "helium": helium,
    "hunyuan_v1_dense": hunyuan,
    "internlm3": internlm3,
    "llama": llama,
    "seed_oss": seed_oss,
    "smollm3": smollm3,
}
