"""GPT-2 and its followers. Imports no torch."""

from __future__ import annotations

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import (
    MAX_LAYERS,
    activation_of,
    alibi_slopes,
    either,
    gpt_like,
    head_dim_of,
    no_rope,
)
from tgi.models.rope_config import RopeOverride, rope_spec
from tgi.models.spec import ModelSpec, Names

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
GPT_NEOX_NAMES = Names(
    prefix="gpt_neox.",
    embedding="gpt_neox.embed_in",
    attention_norm="gpt_neox.layers.{}.input_layernorm",
    qkv=("gpt_neox.layers.{}.attention.query_key_value",),
    qkv_by_head=True,
    attention_out="gpt_neox.layers.{}.attention.dense",
    feedforward_norm="gpt_neox.layers.{}.post_attention_layernorm",
    up=("gpt_neox.layers.{}.mlp.dense_h_to_4h",),
    down="gpt_neox.layers.{}.mlp.dense_4h_to_h",
    final_norm="gpt_neox.final_layer_norm",
    head="embed_out",
    ignored=(r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",),
)
BLOOM_NAMES = Names(
    prefix="transformer.",
    embedding="transformer.word_embeddings",
    embedding_norm="transformer.word_embeddings_layernorm",
    attention_norm="transformer.h.{}.input_layernorm",
    qkv=("transformer.h.{}.self_attention.query_key_value",),
    qkv_by_head=True,
    attention_out="transformer.h.{}.self_attention.dense",
    feedforward_norm="transformer.h.{}.post_attention_layernorm",
    up=("transformer.h.{}.mlp.dense_h_to_4h",),
    down="transformer.h.{}.mlp.dense_4h_to_h",
    final_norm="transformer.ln_f",
    head="lm_head",
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
    return spec.with_layers(attention={"slopes": alibi_slopes(heads)})


FAMILIES = {"gpt2": gpt2, "gpt_neox": gpt_neox, "bloom": bloom}
