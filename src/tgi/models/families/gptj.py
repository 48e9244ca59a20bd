"""GPT-J, CodeGen and GPT-NeoX: attention beside the feed-forward, heads of which a part turns. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader
from tgi.models.families.gpt import GPT2_NAMES
from tgi.models.families.shared import MAX_LAYERS, activation_of, either, gpt_like, head_dim_of
from tgi.models.names import Names
from tgi.models.rope_config import rope_spec
from tgi.models.spec import ModelSpec

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
GPTJ_NAMES = replace(
    GPT2_NAMES,
    positions=None,
    qkv=tuple(f"transformer.h.{{}}.attn.{part}_proj" for part in "qkv"),
    attention_out="transformer.h.{}.attn.out_proj",
    feedforward_norm=GPT2_NAMES.attention_norm,
    up=("transformer.h.{}.mlp.fc_in",),
    down="transformer.h.{}.mlp.fc_out",
    transposed=False,
    ignored=(r"transformer\.h\.\d+\.attn\.(bias|masked_bias|causal_mask|embed_positions)",),
)
CODEGEN_NAMES = replace(GPTJ_NAMES, qkv=("transformer.h.{}.attn.qkv_proj",), qkv_groups=4, qkv_order=(0, 2, 1))


def gptj(reader: ConfigReader) -> ModelSpec:
    """Attention and feed-forward read one norm; pairs that turn are neighbours; the head has a bias."""
    reader.fixed(rotary=True, scale_attn_weights=True)
    width, heads = either(reader, "n_embd", "hidden_size", 4096), either(reader, "n_head", "num_attention_heads", 16)
    head_dim = head_dim_of(width, heads)
    turning = reader.size("rotary_dim", 64)
    if turning % 2 or turning > head_dim:
        raise ModelError(f"config.json: `rotary_dim` must be even and at most {head_dim}, it is {turning}")
    positions = either(reader, "n_positions", "max_position_embeddings", 2048)
    rope, max_positions = rope_spec(reader, head_dim, positions, partial=1.0)
    spec = gpt_like(
        reader,
        width=width,
        heads=heads,
        layers=either(reader, "n_layer", "num_hidden_layers", 28, most=MAX_LAYERS),
        inner=reader.size("n_inner", 4 * width),
        max_positions=max_positions,
        activation=activation_of(reader, "activation_function", "gelu_new"),
        tied=False,
        names=GPTJ_NAMES,
    )
    attention = {"rope": replace(rope, dim=turning), "rope_adjacent": True, "qkv_bias": False, "out_bias": False}
    return replace(spec.with_layers(attention=attention, parallel=True), head_bias=not spec.tied_head)


def codegen(reader: ConfigReader) -> ModelSpec:
    """GPT-J with q, v and k in one matrix, in four parts."""
    spec = gptj(reader)
    if spec.layers[0].attention.heads % 4:
        raise ModelError("config.json: `n_head` of codegen must be a multiple of 4")
    return replace(spec, names=CODEGEN_NAMES)


def gpt_neox(reader: ConfigReader) -> ModelSpec:
    """Attention and feed-forward read the same residual; a quarter of each head turns."""
    width, heads = reader.size("hidden_size"), reader.size("num_attention_heads")
    head_dim = head_dim_of(width, heads)
    theta = _either_number(reader, "rotary_emb_base", "rope_theta", 10_000.0)
    partial = _either_number(reader, "rotary_pct", "partial_rotary_factor", 0.25)
    positions = reader.size("max_position_embeddings", 2048)
    rope, max_positions = rope_spec(reader, head_dim, positions, theta=theta, partial=partial)
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
        tied=False,
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


FAMILIES = {"codegen": codegen, "gpt_neox": gpt_neox, "gptj": gptj}
