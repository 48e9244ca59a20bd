"""The program of an encoder, and what it leaves for the decoder.

    tokens -> embedding -> layer * n -> norm -> keys and values of every decoder layer, into the cache

Its layers are those of `build.decoder`, whose builder writes them. Imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgi.kernels.program import Encoder, StoreKV
from tgi.kernels.weight import Weight
from tgi.models.spec import ModelSpec

if TYPE_CHECKING:
    from tgi.models.build.decoder import Builder


def encoder_of(decoder: ModelSpec, builder: Builder, table: Weight) -> Encoder:
    """builder: of the encoder's spec. table: the decoder's embedding, which both may share."""
    spec, names = builder.spec, decoder.names
    if spec.names.embedding != names.embedding:
        table = Weight((spec.names.embedding,), (spec.vocab_size,), spec.hidden_size, role="table")
    hidden = builder.value("hidden", spec.hidden_size)
    builder.embedding(hidden, table)
    for number, layer in enumerate(spec.layers):
        builder.layer(hidden, layer, number)
    result = builder.norm("normed", hidden, spec.names.final_norm)
    for number, layer in enumerate(decoder.layers):
        cross = layer.cross
        assert cross is not None
        stored = tuple(name.format(number) for name in names.cross_keys_values)
        parts = (cross.kv_size, cross.kv_size)
        weight = Weight(stored, parts, spec.hidden_size, cross.qkv_bias, gives_keys=True, split="rows")
        both = builder.linear("cross", result, weight)
        builder.ops.append(StoreKV(both, number, cross.kv_heads, cross.head_dim, 0, cross.kv_size))
    return Encoder(builder.values, tuple(builder.ops), result, spec.max_positions)
