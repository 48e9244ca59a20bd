"""GPT-2, StarCoder (GPT-BigCode) and GPT-Neo: learned positions. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.kernels.program import Activation
from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import MAX_LAYERS, activation_of, either, gpt_like, no_rope
from tgi.models.names import Names
from tgi.models.spec import AttentionSpec, ModelSpec

GPT2_NAMES = Names(
    prefix="transformer.",
    embedding="transformer.wte",
    positions="transformer.wpe",
    attention_norm="transformer.h.{}.ln_1",
    qkv=("transformer.h.{}.attn.c_attn",),
    attention_out="transformer.h.{}.attn.c_proj",
    feedforward_norm="transformer.h.{}.ln_2",
    up=("transformer.h.{}.mlp.c_fc",),
    down="transformer.h.{}.mlp.c_proj",
    final_norm="transformer.ln_f",
    head="lm_head",
    transposed=True,
    ignored=(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",),
)
BIGCODE_NAMES = replace(GPT2_NAMES, transposed=False, qkv_by_head=True)
GPT_NEO_NAMES = replace(
    GPT2_NAMES,
    transposed=False,
    qkv=tuple(f"transformer.h.{{}}.attn.attention.{part}_proj" for part in "qkv"),
    attention_out="transformer.h.{}.attn.attention.out_proj",
    ignored=(r"transformer\.h\.\d+\.attn\.attention\.(bias|masked_bias)",),
)


def gpt2(reader: ConfigReader) -> ModelSpec:
    """Learned positions; layer norms and biases everywhere."""
    reader.only("scale_attn_by_inverse_layer_idx", False)
    reader.get("reorder_and_upcast_attn")  # the same in another order and in float32, as scores are here anyway
    no_rope(reader, "gpt2 has learned positions")
    return _gpt2_like(reader, "gelu_new", GPT2_NAMES)


def gpt_bigcode(reader: ConfigReader) -> ModelSpec:
    """GPT-2 with keys and values that all heads share."""
    no_rope(reader, "gpt_bigcode has learned positions")
    # The first two as scores are here anyway, the third follows from `multi_query`; the others are of its own server.
    reader.ignore("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "num_key_value_heads")
    reader.ignore("inference_runner", "validate_runner_input", "pre_allocate_kv_cache", "max_batch_size", "attn_type")
    shared = reader.flag("multi_query", True)
    return _gpt2_like(reader, "gelu_pytorch_tanh", BIGCODE_NAMES, kv_heads=1 if shared else None)


def _gpt2_like(reader: ConfigReader, activation: Activation, names: Names, kv_heads: int | None = None) -> ModelSpec:
    width = either(reader, "n_embd", "hidden_size")
    spec = gpt_like(
        reader,
        width=width,
        heads=either(reader, "n_head", "num_attention_heads"),
        kv_heads=kv_heads,
        layers=either(reader, "n_layer", "num_hidden_layers", most=MAX_LAYERS),
        inner=reader.size("n_inner", 4 * width),
        max_positions=either(reader, "n_positions", "max_position_embeddings", 1024),
        activation=activation_of(reader, "activation_function", activation),
        names=names,
    )
    return spec if reader.flag("scale_attn_weights", True) else spec.with_layers(attention={"scale": 1.0})


def gpt_neo(reader: ConfigReader) -> ModelSpec:
    """Every second layer has a window; scores are not scaled."""
    no_rope(reader, "gpt_neo has learned positions")
    width = reader.size("hidden_size", 2048)
    layers = either(reader, "num_layers", "num_hidden_layers", 24, most=MAX_LAYERS)
    spec = gpt_like(
        reader,
        width=width,
        heads=either(reader, "num_heads", "num_attention_heads", 16),
        layers=layers,
        inner=reader.size("intermediate_size", 4 * width),
        max_positions=reader.size("max_position_embeddings", 2048),
        activation=activation_of(reader, "activation_function", "gelu_new"),
        names=GPT_NEO_NAMES,
    )
    kinds, window = _attention_layers(reader, layers), reader.size("window_size", 256)

    def change(layer: int, attention: AttentionSpec) -> AttentionSpec:
        local = kinds[layer] == "local"
        return replace(attention, scale=1.0, qkv_bias=False, window=window if local else None)

    return spec.with_attention(change)


def _attention_layers(reader: ConfigReader, layers: int) -> list[str]:
    """global or local for each layer: [[["global", "local"], 12]] means twelve times these two."""
    types = reader.get("attention_types", [[["global", "local"], layers // 2]])
    try:
        kinds = [kind for pattern, times in types for _ in range(times) for kind in pattern]
    except (TypeError, ValueError):
        kinds = []
    if len(kinds) != layers or not set(kinds) <= {"global", "local"}:
        raise ModelError("config.json: `attention_types` must name global or local for each layer")
    if reader.get("attention_layers", kinds) != kinds:
        raise ModelError("config.json: `attention_layers` contradicts `attention_types`")
    return kinds


FAMILIES = {"gpt2": gpt2, "gpt_bigcode": gpt_bigcode, "gpt_neo": gpt_neo}
