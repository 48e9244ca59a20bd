"""Baichuan 1 and 2: the smaller ones turn queries and keys, the larger ones have ALiBi. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from tgi.models.config_reader import ConfigReader
from tgi.models.families.shared import LLAMA_NAMES, alibi_slopes, llama_like, no_rope
from tgi.models.rope_config import RopeOverride
from tgi.models.spec import ModelSpec

BAICHUAN_NAMES = replace(LLAMA_NAMES, qkv=("model.layers.{}.self_attn.W_pack",))
SECOND_VOCABULARY = 125_696
"""Size of the vocabulary of the second generation, the only key in which its configs differ."""


def baichuan(reader: ConfigReader, override: RopeOverride | None) -> ModelSpec:
    """Llama with q, k and v in one matrix. Configs of those with ALiBi have no number of positions."""
    positions = reader.get("max_position_embeddings")
    trained = reader.size("model_max_length", 4096)
    spec = llama_like(reader, override if positions else None, default_positions=trained, names=BAICHUAN_NAMES)
    if positions is None:
        no_rope(override, "this model has ALiBi")
        slopes = alibi_slopes(spec.layers[0].attention.heads)
        spec = spec.with_layers(attention={"rope": None, "slopes": slopes})
    return replace(spec, head_of_unit_rows=spec.vocab_size == SECOND_VOCABULARY)


FAMILIES = {"baichuan": baichuan}
