"""Where each family keeps its tensors: one `Names` a family, used by `families`. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.spec import Names

LLAMA_NAMES = Names(
    prefix="model.",
    embedding="model.embed_tokens",
    attention_norm="model.layers.{}.input_layernorm",
    qkv=tuple(f"model.layers.{{}}.self_attn.{part}_proj" for part in "qkv"),
    attention_out="model.layers.{}.self_attn.o_proj",
    feedforward_norm="model.layers.{}.post_attention_layernorm",
    up=("model.layers.{}.mlp.gate_proj", "model.layers.{}.mlp.up_proj"),
    down="model.layers.{}.mlp.down_proj",
    final_norm="model.norm",
    head="lm_head",
    ignored=(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
)
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
GEMMA2_NAMES = replace(
    LLAMA_NAMES,
    attention_post_norm="model.layers.{}.post_attention_layernorm",
    feedforward_norm="model.layers.{}.pre_feedforward_layernorm",
    feedforward_post_norm="model.layers.{}.post_feedforward_layernorm",
)
