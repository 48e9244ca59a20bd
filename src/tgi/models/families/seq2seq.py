"""What encoder-decoder families share. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tgi.errors import ModelError
from tgi.models.config_reader import ConfigReader, shown
from tgi.models.spec import ModelSpec


def with_encoder(decoder: ModelSpec, encoder: ModelSpec, reader: ConfigReader, *, start: int | None) -> ModelSpec:
    """The decoder, each layer of which also attends to what the encoder gives, with heads as in its own attention.

    start: `decoder_start_token_id` where the config has none; None: its `bos_token_id`.
    """
    reader.only("is_encoder_decoder", True)
    heads = {(layer.attention.kv_heads, layer.attention.head_dim) for one in (decoder, encoder) for layer in one.layers}
    if len(heads) > 1:
        raise ModelError("config.json: encoder and decoder have attention heads of different number or size")
    layers = tuple(
        replace(layer, cross=replace(layer.attention, sees="encoder", relative_bias=None)) for layer in decoder.layers
    )
    encoder = encoder.with_layers(attention={"sees": "all"})
    return replace(decoder, layers=layers, encoder=encoder, decoder_start=decoder_start(reader, start))


def decoder_start(reader: ConfigReader, default: int | None) -> tuple[int, ...]:
    """The ids that a decoder begins with: its start token, and the one that is forced to come first."""
    start = reader.get("decoder_start_token_id", default)
    if start is None:
        start = reader.get("bos_token_id", reader.get("pad_token_id"))
    if start is None:
        raise ModelError("config.json names no `decoder_start_token_id`, with which answers begin")
    return start_ids(start, reader.get("forced_bos_token_id"), "config.json")


def start_ids(start: Any, forced: Any, file: str) -> tuple[int, ...]:
    """The same from values of a config file. Raises ModelError for what is no token id."""
    named = {"decoder_start_token_id": start, "forced_bos_token_id": forced}
    for name, value in named.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise ModelError(f"{file}: `{name}` must be a token id, it is {shown(value)}")
    return (start,) if forced is None else (start, forced)
