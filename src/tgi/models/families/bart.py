"""BART, mBART, M2M100 (NLLB), Marian and Pegasus: one layout, with norms before or after the sums and positions learned
or computed. Imports no torch.
"""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader, shown
from tgi.models.families.seq2seq import with_encoder
from tgi.models.families.shared import MAX_LAYERS, activation_of, gpt_like, no_rope
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import ModelSpec, Names


def _names(stack: str) -> Names:
    """Of encoder or decoder."""
    layer = f"model.{stack}.layers.{{}}"
    return Names(
        prefix="model.",
        embedding="model.shared",
        positions=f"model.{stack}.embed_positions",
        embedding_norm=f"model.{stack}.layernorm_embedding",
        attention_norm=f"{layer}.self_attn_layer_norm",
        qkv=tuple(f"{layer}.self_attn.{part}_proj" for part in "qkv"),
        attention_out=f"{layer}.self_attn.out_proj",
        cross_norm=f"{layer}.encoder_attn_layer_norm",
        cross_query=f"{layer}.encoder_attn.q_proj",
        cross_keys_values=tuple(f"{layer}.encoder_attn.{part}_proj" for part in "kv"),
        cross_out=f"{layer}.encoder_attn.out_proj",
        feedforward_norm=f"{layer}.final_layer_norm",
        up=(f"{layer}.fc1",),
        down=f"{layer}.fc2",
        final_norm=f"model.{stack}.layer_norm",
        head="lm_head",
        head_bias="model.final_logits_bias",
        ignored=(r"model\.(en|de)coder\.(embed_tokens|embed_positions)\.weights?",),
    )


def bart(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Learned positions that begin at row 2; norms come after the sums."""
    _written(reader, normalize_before=False, add_final_layer_norm=False, normalize_embedding=True)
    return _bart_like(reader, override, "gelu", 2, norm_sums=True)


def mbart(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """BART with norms before the sums and at the end."""
    _written(reader, normalize_before=True, add_final_layer_norm=True, normalize_embedding=True)
    return _bart_like(reader, override, "gelu", None)


def m2m_100(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """mBART with computed positions, which begin after the row of the padding."""
    spec = _bart_like(reader, override, "relu", 2, scaled=True, embedding_norm=False)
    padding = reader.get("pad_token_id", 1)
    if type(padding) is not int or not 0 <= padding < spec.vocab_size:
        raise ModelError(f"config.json: `pad_token_id` must be a token id, it is {shown(padding)}")
    return _both(spec, first_position=padding + 1, sinusoidal_positions="by half")


def marian(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """BART with computed positions and, in some, a vocabulary for each side; the head's bias matters."""
    _written(reader, normalize_before=False, add_final_layer_norm=False, normalize_embedding=False)
    spec = _bart_like(reader, override, "gelu", 58_100, norm_sums=True, embedding_norm=False)
    spec = _both(spec, first_position=0, sinusoidal_positions="by width")
    vocabulary = reader.size("decoder_vocab_size", spec.vocab_size)
    if reader.flag("share_encoder_decoder_embeddings", True):
        return spec
    assert spec.encoder is not None
    encoder = replace(spec.encoder.names, embedding="model.encoder.embed_tokens")
    names = replace(spec.names, embedding="model.decoder.embed_tokens")
    return replace(spec, names=names, vocab_size=vocabulary, encoder=replace(spec.encoder, names=encoder))


def pegasus(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """mBART with computed positions and no norm after the embedding."""
    _written(reader, normalize_before=True, add_final_layer_norm=True, normalize_embedding=False)
    spec = _bart_like(reader, override, "gelu", 0, embedding_norm=False)
    return _both(spec, first_position=0, sinusoidal_positions="by width")


def _bart_like(
    reader: ConfigReader,
    override: RopeOverride | None,
    activation: str,
    start: int | None,
    *,
    scaled: bool = False,
    norm_sums: bool = False,
    embedding_norm: bool = True,
) -> ModelSpec:
    """scaled: embeddings are multiplied with the root of the width where the config does not say."""
    no_rope(override, "BART has positions of its own")
    width = reader.size("d_model", 1024)
    reader.size("num_hidden_layers", 12)  # that of the encoder, once more

    def half(stack: str) -> ModelSpec:
        names = _names(stack)
        return gpt_like(
            reader,
            width=width,
            heads=reader.size(f"{stack}_attention_heads", 16),
            layers=reader.size(f"{stack}_layers", 12, most=MAX_LAYERS),
            inner=reader.size(f"{stack}_ffn_dim", 4096),
            max_positions=reader.size("max_position_embeddings", 1024),
            eps=1e-5,
            activation=activation_of(reader, "activation_function", activation),  # type: ignore[arg-type]
            tied_head=reader.flag("tie_word_embeddings", True),
            names=replace(
                names,
                embedding_norm=names.embedding_norm if embedding_norm else None,
                final_norm=None if norm_sums else names.final_norm,
            ),
        )

    spec = with_encoder(half("decoder"), half("encoder"), reader, start=start)
    scale = width**0.5 if reader.flag("scale_embedding", scaled) else 1.0
    both = _both(spec, embedding_scale=scale, first_position=2, head_bias=True)
    assert both.encoder is not None
    if not norm_sums:
        return both
    return replace(both.with_layers(norm_sums=True), encoder=both.encoder.with_layers(norm_sums=True))


def _both(spec: ModelSpec, **fields: object) -> ModelSpec:
    """The same values for decoder and encoder."""
    assert spec.encoder is not None
    return replace(spec, encoder=replace(spec.encoder, **fields), **fields)  # type: ignore[arg-type]


def _written(reader: ConfigReader, **values: bool) -> None:
    """What old configs say in so many words and the family implies."""
    for name, value in values.items():
        reader.only(name, value)
    for name in ("extra_pos_embeddings", "static_position_embeddings", "add_bias_logits"):
        reader.get(name)


FAMILIES = {"bart": bart, "mbart": mbart, "m2m_100": m2m_100, "marian": marian, "pegasus": pegasus}
