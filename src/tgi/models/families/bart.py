"""BART, mBART, M2M100 (NLLB), Marian and Pegasus: one layout, with norms before or after the sums and positions learned
or computed. Imports no torch.
"""

from __future__ import annotations

from dataclasses import replace

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader, shown
from tgi.models.families.opt import fairseq_names
from tgi.models.families.seq2seq import with_encoder
from tgi.models.families.shared import MAX_LAYERS, activation_of, gpt_like, no_rope
from tgi.models.spec import ModelSpec, Names


def _names(stack: str) -> Names:
    """Of encoder or decoder."""
    layer = f"model.{stack}.layers.{{}}"
    return replace(
        fairseq_names(f"model.{stack}", "layer_norm"),
        embedding="model.shared",
        embedding_norm=f"model.{stack}.layernorm_embedding",
        cross_norm=f"{layer}.encoder_attn_layer_norm",
        cross_query=f"{layer}.encoder_attn.q_proj",
        cross_keys_values=tuple(f"{layer}.encoder_attn.{part}_proj" for part in "kv"),
        cross_out=f"{layer}.encoder_attn.out_proj",
        head_bias="model.final_logits_bias",
        ignored=(r"model\.(en|de)coder\.(embed_tokens|embed_positions)\.weights?",),
    )


def bart(reader: ConfigReader) -> ModelSpec:
    """Learned positions that begin at row 2; norms come after the sums."""
    _written(reader, normalize_before=False, add_final_layer_norm=False, normalize_embedding=True)
    return _bart_like(reader, "gelu", 2, norm_sums=True)


def mbart(reader: ConfigReader) -> ModelSpec:
    """BART with norms before the sums and at the end."""
    _written(reader, normalize_before=True, add_final_layer_norm=True, normalize_embedding=True)
    return _bart_like(reader, "gelu", None)


def m2m_100(reader: ConfigReader) -> ModelSpec:
    """mBART with computed positions, which begin after the row of the padding."""
    spec = _bart_like(reader, "relu", 2, scaled=True, embedding_norm=False)
    padding = reader.get("pad_token_id", 1)
    if type(padding) is not int or not 0 <= padding < spec.vocab_size:
        raise ModelError(f"config.json: `pad_token_id` must be a token id, it is {shown(padding)}")
    return _both(spec, first_position=padding + 1, sinusoidal_positions="by half")


def marian(reader: ConfigReader) -> ModelSpec:
    """BART with computed positions and, in some, a vocabulary for each side; the head's bias matters."""
    _written(reader, normalize_before=False, add_final_layer_norm=False, normalize_embedding=False)
    spec = _bart_like(reader, "gelu", 58_100, norm_sums=True, embedding_norm=False)
    spec = _both(spec, first_position=0, sinusoidal_positions="by width")
    vocabulary = reader.size("decoder_vocab_size", spec.vocab_size)
    if reader.flag("share_encoder_decoder_embeddings", True):
        return spec
    assert spec.encoder is not None
    encoder = replace(spec.encoder.names, embedding="model.encoder.embed_tokens")
    names = replace(spec.names, embedding="model.decoder.embed_tokens")
    return replace(spec, names=names, vocab_size=vocabulary, encoder=replace(spec.encoder, names=encoder))


def pegasus(reader: ConfigReader) -> ModelSpec:
    """mBART with computed positions and no norm after the embedding."""
    _written(reader, normalize_before=True, add_final_layer_norm=True, normalize_embedding=False)
    spec = _bart_like(reader, "gelu", 0, embedding_norm=False)
    return _both(spec, first_position=0, sinusoidal_positions="by width")


def _bart_like(
    reader: ConfigReader,
    activation: str,
    start: int | None,
    *,
    scaled: bool = False,
    norm_sums: bool = False,
    embedding_norm: bool = True,
) -> ModelSpec:
    """scaled: embeddings are multiplied with the root of the width where the config does not say."""
    no_rope(reader, "BART has positions of its own")
    width = reader.size("d_model", 1024)
    reader.size("num_hidden_layers", 12)  # that of the encoder, once more

    def half(stack: str) -> ModelSpec:
        names = _names(stack)
        spec = gpt_like(
            reader,
            width=width,
            heads=reader.size(f"{stack}_attention_heads", 16),
            layers=reader.size(f"{stack}_layers", 12, most=MAX_LAYERS),
            inner=reader.size(f"{stack}_ffn_dim", 4096),
            max_positions=reader.size("max_position_embeddings", 1024),
            eps=1e-5,
            activation=activation_of(reader, "activation_function", activation),  # type: ignore[arg-type]
            names=replace(
                names,
                embedding_norm=names.embedding_norm if embedding_norm else None,
                final_norm=None if norm_sums else names.final_norm,
            ),
        )
        return spec.with_layers(norm_sums=norm_sums)

    spec = with_encoder(half("decoder"), half("encoder"), reader, start=start)
    scale = width**0.5 if reader.flag("scale_embedding", scaled) else 1.0
    return _both(spec, embedding_scale=scale, first_position=2, head_bias=True)


def _both(spec: ModelSpec, **fields: object) -> ModelSpec:
    """The same values for decoder and encoder."""
    assert spec.encoder is not None
    return replace(spec, encoder=replace(spec.encoder, **fields), **fields)  # type: ignore[arg-type]


def _written(reader: ConfigReader, **values: bool) -> None:
    """What old configs say in so many words and the family implies."""
    reader.fixed(**values)
    reader.ignore("extra_pos_embeddings", "static_position_embeddings", "add_bias_logits")


FAMILIES = {"bart": bart, "mbart": mbart, "m2m_100": m2m_100, "marian": marian, "pegasus": pegasus}
