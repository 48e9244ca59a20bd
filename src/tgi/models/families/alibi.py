"""BLOOM, Falcon and MPT: scores that fall with the distance. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import replace

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
from tgi.models.names import Names
from tgi.models.rope_config import rope_spec
from tgi.models.spec import ModelSpec

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
FALCON_NAMES = replace(BLOOM_NAMES, embedding_norm=None)
MPT_NAMES = Names(
    prefix="transformer.",
    embedding="transformer.wte",
    attention_norm="transformer.blocks.{}.norm_1",
    qkv=("transformer.blocks.{}.attn.Wqkv",),
    attention_out="transformer.blocks.{}.attn.out_proj",
    feedforward_norm="transformer.blocks.{}.norm_2",
    up=("transformer.blocks.{}.ffn.up_proj",),
    down="transformer.blocks.{}.ffn.down_proj",
    final_norm="transformer.norm_f",
    head="lm_head",
)


def bloom(reader: ConfigReader) -> ModelSpec:
    """ALiBi in place of positions; a norm after the embedding."""
    normed = reader.flag("apply_residual_connection_post_layernorm", False)
    reader.only("slow_but_exact", False)  # transformers then leaves biases out
    no_rope(reader, "bloom has ALiBi")
    # How its training code computed the same.
    reader.ignore("attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi")
    reader.ignore("skip_bias_add", "skip_bias_add_qkv")
    width, heads = either(reader, "hidden_size", "n_embed"), either(reader, "n_head", "num_attention_heads")
    reader.only("n_inner", 4 * width)
    spec = gpt_like(
        reader,
        width=width,
        heads=heads,
        layers=either(reader, "n_layer", "num_hidden_layers", most=MAX_LAYERS),
        inner=4 * width,
        max_positions=reader.size("seq_length", 2048),  # of training; ALiBi itself has no limit
        activation="gelu_pytorch_tanh",
        names=BLOOM_NAMES,
    )
    return spec.with_layers(attention={"slopes": alibi_slopes(heads)}, normed_residual=normed)


def falcon(reader: ConfigReader) -> ModelSpec:
    """Keys of one head, of some or of all; one or two norms for attention beside the feed-forward; rotary or ALiBi."""
    reader.only("apply_residual_connection_post_layernorm", False)
    width = either(reader, "hidden_size", "n_embed")
    heads = either(reader, "num_attention_heads", "n_head")
    new, bias, alibi = (reader.flag(key, False) for key in ("new_decoder_architecture", "bias", "alibi"))
    parallel = reader.flag("parallel_attn", True)
    multi_query = reader.flag("multi_query", True)
    kv_heads = either(reader, "num_kv_heads", "n_head_kv", heads)
    if not new:
        kv_heads = 1 if multi_query else heads
    head_dim = head_dim_of(width, heads)
    positions = reader.size("max_position_embeddings", 2048)
    rope, max_positions = rope_spec(reader, head_dim, positions)
    if alibi:
        no_rope(reader, "this model has ALiBi")
    spec = gpt_like(
        reader,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        layers=either(reader, "num_hidden_layers", "n_layer", most=MAX_LAYERS),
        inner=reader.size("ffn_hidden_size", 4 * width),
        max_positions=max_positions,
        activation=activation_of(reader, "activation", "gelu"),
        names=_falcon_names(reader, new, parallel),
        bias=bias,
    )
    # The bias of ALiBi is scaled as scores are. transformers rounds it to bfloat16 whatever the dtype; here it is not.
    slopes = tuple(slope * head_dim**-0.5 for slope in alibi_slopes(heads))
    attention = {"slopes": slopes} if alibi else {"rope": rope}
    return spec.with_layers(attention=attention, parallel=parallel)


def _falcon_names(reader: ConfigReader, new: bool, parallel: bool) -> Names:
    norms = reader.get("num_ln_in_parallel_attn", 2 if new else 1)
    if (new and not parallel) or norms not in (1, 2) or (norms == 2 and not new):
        raise ModelError(
            "config.json: this combination of `new_decoder_architecture`, `parallel_attn` and "
            "`num_ln_in_parallel_attn` is not supported"
        )
    if not parallel:
        return FALCON_NAMES
    if norms == 1:
        return replace(FALCON_NAMES, feedforward_norm=FALCON_NAMES.attention_norm)
    return replace(FALCON_NAMES, attention_norm="transformer.h.{}.ln_attn", feedforward_norm="transformer.h.{}.ln_mlp")


def mpt(reader: ConfigReader) -> ModelSpec:
    """Norms and products without biases; ALiBi with slopes of its own order."""
    no_rope(reader, "mpt has ALiBi")
    for key, value in (("no_bias", True), ("expansion_ratio", 4), ("embedding_fraction", 1.0)):
        reader.only(key, value)
    reader.only("norm_type", "low_precision_layernorm", "layernorm")
    reader.ignore("init_device", "init_config", "learned_pos_emb", "tokenizer_name", "verbose", "emb_pdrop", "fc_type")
    inner = reader.nested("attn_config")
    for key, value in (("attn_type", "multihead_attention"), ("prefix_lm", False), ("qk_ln", False), ("alibi", True)):
        inner.only(key, value)
    inner.fixed(qk_gn=False, rope=False, attn_uses_sequence_id=False)
    width, heads = either(reader, "d_model", "hidden_size", 2048), either(reader, "n_heads", "num_attention_heads", 16)
    spec = gpt_like(
        reader,
        width=width,
        heads=heads,
        layers=either(reader, "n_layers", "num_hidden_layers", 24, most=MAX_LAYERS),
        inner=4 * width,
        max_positions=reader.size("max_seq_len", 2048),
        activation="gelu",
        names=MPT_NAMES,
        bias=False,
    )
    scale = inner.number("softmax_scale", spec.layers[0].attention.scale)
    slopes = _mpt_slopes(heads, inner.number("alibi_bias_max", 8.0))
    clip = inner.optional_number("clip_qkv", None)
    spec = spec.with_layers(attention={"scale": scale, "slopes": slopes, "clip": clip})
    return replace(spec, norm=replace(spec.norm, bias=False))


def _mpt_slopes(heads: int, most: float) -> tuple[float, ...]:
    """As `alibi_slopes`, but other counts take from the next larger power of two: every second one first."""
    power = 1 << math.ceil(math.log2(heads))
    slopes = [2.0 ** -(most * (head + 1) / power) for head in range(power)]
    if power != heads:
        slopes = [*slopes[1::2], *slopes[::2]]
    return tuple(slopes[:heads])


FAMILIES = {"bloom": bloom, "falcon": falcon, "mpt": mpt}
