"""Mamba 2 and LFM2: layers with a state in place of keys and values. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import (
    LLAMA_NAMES,
    MAX_LAYERS,
    Defaults,
    NormKeys,
    activation_of,
    dtype,
    llama_like,
    no_rope,
    with_mixers,
)
from tgi.models.names import Names
from tgi.models.spec import (
    AttentionSpec,
    FeedForwardSpec,
    LayerSpec,
    MambaSpec,
    ModelSpec,
    NormSpec,
    ShortConvSpec,
)

MAMBA2_NAMES = Names(
    prefix="backbone.",
    embedding="backbone.embeddings",
    attention_norm="backbone.layers.{}.norm",
    qkv=(),
    attention_out="",
    feedforward_norm=None,
    up=(),
    down="",
    final_norm="backbone.norm_f",
    head="lm_head",
    mixer="backbone.layers.{}.mixer",
)
LFM2_NAMES = replace(
    LLAMA_NAMES,
    attention_norm="model.layers.{}.operator_norm",
    attention_out="model.layers.{}.self_attn.out_proj",
    query_norm="model.layers.{}.self_attn.q_layernorm",
    key_norm="model.layers.{}.self_attn.k_layernorm",
    feedforward_norm="model.layers.{}.ffn_norm",
    up=("model.layers.{}.feed_forward.w1", "model.layers.{}.feed_forward.w3"),
    down="model.layers.{}.feed_forward.w2",
    final_norm="model.embedding_norm",
    mixer="model.layers.{}.conv",
)
NOTHING = AttentionSpec(heads=1, kv_heads=1, head_dim=1, scale=1.0)
"""Of layers without attention."""
MAMBA2_POSITIONS = 8192
"""Longest sequence unless another is asked for: configs have none, and a state has no end."""


def mamba2(reader: ConfigReader) -> ModelSpec:
    """A recurrence in every layer, and nothing else."""
    no_rope(reader, "mamba2 has no positions")
    # Of initialisation.
    reader.ignore("time_step_rank", "time_step_min", "time_step_max", "time_step_floor", "rescale_prenorm_residual")
    reader.ignore("residual_in_fp32", "chunk_size", "norm_before_gate", "rms_norm", "layer_types")
    width = reader.size("hidden_size", 4096)
    mamba = mamba_spec(
        reader,
        width * reader.size("expand", 2),
        activation_of(reader, "hidden_act", "silu"),
        heads=reader.size("num_heads", 128),
        head_dim=reader.size("head_dim", 64),
        state_dim=reader.size("state_size", 128),
        groups=reader.size("n_groups", 8),
        kernel=reader.size("conv_kernel", 4),
        conv_bias=reader.flag("use_conv_bias", True),
        bias=reader.flag("use_bias", False),
    )
    feedforward = FeedForwardSpec(inner=0, activation="silu", gated=False)
    layer = LayerSpec(attention=NOTHING, feedforward=feedforward, mixer=mamba)
    return ModelSpec(
        model_type=reader.get("model_type"),
        vocab_size=reader.size("vocab_size", 32_768),
        hidden_size=width,
        layers=(layer,) * reader.size("num_hidden_layers", 64, most=MAX_LAYERS),
        max_positions=MAMBA2_POSITIONS,
        norm=NormSpec(kind="rms", eps=reader.number("layer_norm_epsilon", 1e-5)),
        tied_head=reader.flag("tie_word_embeddings", False),
        dtype=dtype(reader),
        names=MAMBA2_NAMES,
    )


def mamba_spec(reader: ConfigReader, inner: int, activation: str, **sizes: Any) -> MambaSpec:
    """The layers of these sizes, of which heads must make `inner` numbers; with the limits of steps."""
    limits, infinite = reader.get("time_step_limit", [0.0, float("inf")]), {"__float__": "Infinity"}
    if isinstance(limits, list):  # JSON has no infinity, and transformers writes its own
        limits = [float("inf") if one == infinite else one for one in limits]
    good = isinstance(limits, list) and len(limits) == 2 and all(type(one) in (int, float) for one in limits)
    if not good or not 0 <= limits[0] <= limits[1]:
        raise ModelError(f"config.json: `time_step_limit` must be two numbers in ascending order, it is {limits!r}")
    mamba = MambaSpec(least_step=float(limits[0]), most_step=float(limits[1]), **sizes)
    if mamba.inner != inner or mamba.heads % mamba.groups:
        raise ModelError(
            f"config.json: {mamba.heads} heads of {mamba.head_dim} in {mamba.groups} groups do not make {inner} numbers"
        )
    if activation != "silu":
        raise ModelError(f"config.json: `hidden_act` {activation} is not supported for this model type; silu is")
    return mamba


def lfm2(reader: ConfigReader) -> ModelSpec:
    """Short convolutions in most layers, attention in some."""
    layers = reader.size("num_hidden_layers", 32, most=MAX_LAYERS)
    types = reader.get("layer_types")
    full = reader.get("full_attn_idxs", list(range(layers)))
    if types is None and isinstance(full, list):
        types = ["full_attention" if layer in full else "conv" for layer in range(layers)]
    reader.ignore(
        "conv_dim",
        "conv_dim_out",
        "conv_use_xavier_init",
        "block_mlp_init_scale",
        "block_out_init_scale",
        "block_dim",
        "block_norm_eps",
        "block_use_swiglu",
        "block_use_xavier_init",
        "num_heads",
        "use_pos_enc",
    )
    tied = reader.flag("tie_word_embeddings", True)
    spec = llama_like(
        reader,
        Defaults(positions=128_000, kv_heads=8, theta=1_000_000.0, eps=1e-5),
        norm=NormKeys(eps_key="norm_eps"),
        qk_norm="head",
        names=LFM2_NAMES,
    )
    conv = ShortConvSpec(kernel=reader.size("conv_L_cache", 3), bias=reader.flag("conv_bias", False))
    spec = spec.with_layers(feedforward={"inner": _inner(reader)})
    spec = with_mixers(spec, types, {"full_attention": None, "conv": conv})
    return replace(spec, tied_head=reader.flag("tie_embedding", tied))


def _inner(reader: ConfigReader) -> int:
    """Inner size of the feed-forward, of which the config may give what it is computed from."""
    inner = reader.size("block_ff_dim", reader.size("intermediate_size", 12_288))
    factor, multiple = reader.number("block_ffn_dim_multiplier", 1.0), reader.size("block_multiple_of", 256)
    if not reader.flag("block_auto_adjust_ff_dim", True):
        return inner
    return -(-int(factor * int(2 * inner / 3)) // multiple) * multiple


FAMILIES = {"lfm2": lfm2, "mamba2": mamba2}
