"""T5 1.0 and 1.1 (flan), mT5 (mT0) and UMT5: no positions, but a bias by distance in attention. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader, shown
from tgi.models.families.seq2seq import with_encoder
from tgi.models.families.shared import MAX_LAYERS, activation_of, dtype, no_rope
from tgi.models.spec import AttentionSpec, FeedForwardSpec, LayerSpec, ModelSpec, Names, NormSpec, RelativeBiasSpec

MT5_DEFAULTS: dict[str, Any] = {"vocabulary": 250_112, "default_layers": 8, "default_heads": 6, "default_inner": 1024}


def _names(stack: str, feedforward: int, up: tuple[str, ...], bias_layer: str) -> Names:
    """Of encoder or decoder; feedforward: its place in a block. bias_layer: the block whose bias a layer has."""
    block = f"{stack}.block.{{}}.layer"
    bias = f"{stack}.block.{bias_layer}.layer.0.SelfAttention.relative_attention_bias"
    return Names(
        embedding="shared",
        attention_norm=f"{block}.0.layer_norm",
        qkv=tuple(f"{block}.0.SelfAttention.{part}" for part in "qkv"),
        attention_out=f"{block}.0.SelfAttention.o",
        relative_bias=bias,
        cross_norm=f"{block}.1.layer_norm",
        cross_query=f"{block}.1.EncDecAttention.q",
        cross_keys_values=tuple(f"{block}.1.EncDecAttention.{part}" for part in "kv"),
        cross_out=f"{block}.1.EncDecAttention.o",
        feedforward_norm=f"{block}.{feedforward}.layer_norm",
        up=tuple(f"{block}.{feedforward}.DenseReluDense.{name}" for name in up),
        down=f"{block}.{feedforward}.DenseReluDense.wo",
        final_norm=f"{stack}.final_layer_norm",
        head="lm_head",
        ignored=(
            r"(en|de)coder\.embed_tokens\.weight",
            r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
        ),
    )


def t5(reader: ConfigReader) -> ModelSpec:
    """Norms without biases, scores not scaled, a bias that all layers share; 1.0 scales what the head reads."""
    return _t5_like(reader, "relu", None, scaled=_scaled(reader))


def mt5(reader: ConfigReader) -> ModelSpec:
    """T5 1.1 with a larger vocabulary."""
    reader.flag("tie_word_embeddings", True)  # published configs say false; the checkpoint decides
    return _t5_like(reader, "gated-gelu", 0, scaled=False, **MT5_DEFAULTS)


def umt5(reader: ConfigReader) -> ModelSpec:
    """mT5 with a bias of its own in every layer."""
    return _t5_like(reader, "gated-gelu", 0, scaled=_scaled(reader), bias_layer="{}", **MT5_DEFAULTS)


def _scaled(reader: ConfigReader) -> bool:
    """Published configs say it through the tying of the head, which the checkpoint itself decides."""
    return reader.flag("scale_decoder_outputs", reader.flag("tie_word_embeddings", True))


def _t5_like(
    reader: ConfigReader,
    projection: str,
    start: int | None,
    *,
    scaled: bool,
    bias_layer: str = "0",
    vocabulary: int = 32_128,
    default_layers: int = 6,
    default_heads: int = 8,
    default_inner: int = 2048,
) -> ModelSpec:
    no_rope(reader, "T5 has a bias by distance in place of positions")
    width, layers = reader.size("d_model", 512), reader.size("num_layers", default_layers, most=MAX_LAYERS)
    attention = AttentionSpec(
        heads=(heads := reader.size("num_heads", default_heads)),
        kv_heads=heads,
        head_dim=reader.size("d_kv", 64),
        scale=1.0,
        relative_bias=RelativeBiasSpec(
            buckets=reader.size("relative_attention_num_buckets", 32),
            furthest=reader.size("relative_attention_max_distance", 128),
        ),
    )
    feedforward = _feedforward(reader, projection, default_inner)
    up = ("wi_0", "wi_1") if feedforward.gated else ("wi",)
    spec = ModelSpec(
        model_type=reader.get("model_type"),
        vocab_size=reader.size("vocab_size", vocabulary),
        hidden_size=width,
        layers=(LayerSpec(attention=attention, feedforward=feedforward),) * layers,
        max_positions=reader.size("n_positions", 512),
        norm=NormSpec(kind="rms", eps=reader.number("layer_norm_epsilon", 1e-6)),
        tied_head=True,
        logit_scale=width**-0.5 if scaled else 1.0,
        dtype=dtype(reader),
        names=_names("encoder", 1, up, bias_layer),
    )
    decoder = replace(
        spec,
        layers=spec.layers[:1] * reader.size("num_decoder_layers", layers, most=MAX_LAYERS),
        names=_names("decoder", 2, up, bias_layer),
    )
    return with_encoder(decoder, spec, reader, start=start)


def _feedforward(reader: ConfigReader, default: str, inner: int) -> FeedForwardSpec:
    """`feed_forward_proj` is an activation function, after `gated-` where there is a gate."""
    value = reader.get("feed_forward_proj", default)
    if not isinstance(value, str):
        raise ModelError(f"config.json: `feed_forward_proj` must be a text, it is {shown(value)}")
    gated = value.startswith("gated-")
    name = "gelu_new" if value == "gated-gelu" else value.removeprefix("gated-")
    reader.fixed(is_gated_act=gated, dense_act_fn=name)
    activation = activation_of(ConfigReader({"feed_forward_proj": name}), "feed_forward_proj", "relu")
    return FeedForwardSpec(inner=reader.size("d_ff", inner), activation=activation, gated=gated)


FAMILIES = {"t5": t5, "mt5": mt5, "umt5": umt5}
