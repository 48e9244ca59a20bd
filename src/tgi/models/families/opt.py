"""OPT (and Galactica), and XGLM: positions that begin at row 2. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import MAX_LAYERS, activation_of, either, gpt_like, no_rope
from tgi.models.names import Names
from tgi.models.spec import ModelSpec


def fairseq_names(stack: str, final_norm: str) -> Names:
    """Of a stack of layers as fairseq has them."""
    layer = f"{stack}.layers.{{}}"
    return Names(
        prefix="model.",
        embedding=f"{stack}.embed_tokens",
        positions=f"{stack}.embed_positions",
        attention_norm=f"{layer}.self_attn_layer_norm",
        qkv=tuple(f"{layer}.self_attn.{part}_proj" for part in "qkv"),
        attention_out=f"{layer}.self_attn.out_proj",
        feedforward_norm=f"{layer}.final_layer_norm",
        up=(f"{layer}.fc1",),
        down=f"{layer}.fc2",
        final_norm=f"{stack}.{final_norm}",
        head="lm_head",
        ignored=(r"model\.embed_positions\.weights",),
    )


OPT_NAMES = fairseq_names("model.decoder", "final_layer_norm")
OPT_PROJECTED = replace(OPT_NAMES, project_in="model.decoder.project_in", project_out="model.decoder.project_out")
XGLM_NAMES = fairseq_names("model", "layer_norm")


def opt(reader: ConfigReader) -> ModelSpec:
    """Learned positions; in OPT-350m norms come after the sums, and embeddings are projected."""
    no_rope(reader, "opt has learned positions")
    width, bias = reader.size("hidden_size", 768), reader.flag("enable_bias", True)
    embedding = reader.size("word_embed_proj_dim", width)
    before = reader.flag("do_layer_norm_before", True)
    removed = reader.flag("_remove_final_layer_norm", False)
    names = OPT_NAMES if embedding == width else OPT_PROJECTED
    spec = gpt_like(
        reader,
        width=width,
        heads=reader.size("num_attention_heads", 12),
        layers=reader.size("num_hidden_layers", 12, most=MAX_LAYERS),
        inner=reader.size("ffn_dim", 3072),
        max_positions=reader.size("max_position_embeddings", 2048),
        eps=1e-5,
        activation=activation_of(reader, "activation_function", "relu"),
        names=names if before and not removed else replace(names, final_norm=None),
        bias=bias,
    )
    affine = reader.flag("layer_norm_elementwise_affine", True)
    return replace(
        spec.with_layers(norm_sums=not before),
        norm=replace(spec.norm, scale=affine, bias=affine),
        embedding_size=None if embedding == width else embedding,
        first_position=2,
    )


def xglm(reader: ConfigReader) -> ModelSpec:
    """Positions are sines and cosines, which no checkpoint holds."""
    no_rope(reader, "xglm has positions of its own")
    width = either(reader, "d_model", "hidden_size", 1024)
    spec = gpt_like(
        reader,
        width=width,
        heads=either(reader, "attention_heads", "num_attention_heads", 16),
        layers=either(reader, "num_layers", "num_hidden_layers", 24, most=MAX_LAYERS),
        inner=reader.size("ffn_dim", 4096),
        max_positions=reader.size("max_position_embeddings", 2048),
        eps=1e-5,
        activation=activation_of(reader, "activation_function", "gelu"),
        names=XGLM_NAMES,
    )
    scale = width**0.5 if reader.flag("scale_embedding", True) else 1.0
    return replace(spec, embedding_scale=scale, first_position=2, sinusoidal_positions="by half")


FAMILIES = {"opt": opt, "xglm": xglm}
