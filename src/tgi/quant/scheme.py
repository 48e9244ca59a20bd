"""Which matrix of a model `--quantize` rounds to which codes. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tgi.kernels.formats import CODE_FORMATS, CodeFormat
from tgi.kernels.weight import Weight


@dataclass(frozen=True, slots=True)
class Scheme:
    """One value of `--quantize`."""

    layer: CodeFormat
    head: CodeFormat


_INT8, _INT6, _INT5, _INT4 = (
    replace(CODE_FORMATS[name], rotated=True, feedback=True) for name in ("int8", "int6", "int5", "iq4_nl")
)
SCHEMES = {
    "int8": Scheme(_INT8, _INT8),
    "int6": Scheme(_INT6, _INT6),
    "int5": Scheme(_INT5, _INT6),
    "int4": Scheme(_INT4, _INT6),
}
"""Heads stop at 6 bits: the errors of one reach every logit unmixed."""


def has_feedback(quantize: str | None) -> bool:
    """Whether rounding wants to know what inputs matrices get."""
    return quantize is not None and SCHEMES[quantize].layer.feedback


def format_of(weight: Weight, quantize: str | None) -> CodeFormat | None:
    """The codes of a matrix under `--quantize`; None: floats.

    Tables that are only looked up stay floats, since a step reads few of their rows, and so do routers: they are small,
    and another choice of experts is a large error.
    """
    if quantize is None or weight.role in ("table", "router"):
        return None
    return SCHEMES[quantize].head if weight.role == "head" else SCHEMES[quantize].layer
