"""Which matrix of a model `--quantize` rounds to which codes. Imports no torch."""

from __future__ import annotations

from tgi.kernels.weight import Weight

HEAD_FORMATS = {"int4": "int6"}
"""Heads stop at int6: the errors of one reach every logit unmixed."""


def format_of(weight: Weight, quantize: str | None) -> str | None:
    """The code format of a matrix under `--quantize`; None: floats.

    Tables that are only looked up stay floats, since a step reads few of their rows.
    """
    if quantize is None or weight.role == "table":
        return None
    return HEAD_FORMATS.get(quantize, quantize) if weight.role == "head" else quantize
