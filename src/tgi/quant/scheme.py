"""Which matrix of a model `--quantize` rounds to which codes. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tgi.kernels.formats import CODE_FORMATS, CodeFormat
from tgi.kernels.weight import Weight
from tgi.settings.flags import LIBRARY_ROUNDINGS


@dataclass(frozen=True, slots=True)
class Scheme:
    """One value of `--quantize`."""

    layer: CodeFormat
    head: CodeFormat
    keys: CodeFormat | None = None
    """Of matrices that keys and values come out of; None: as other layers."""


_INT8, _INT6, _INT5, _INT4 = (
    replace(CODE_FORMATS[name], rotated=True, feedback=True) for name in ("int8", "int6", "int5", "iq4_nl")
)
SCHEMES = {
    "int8": Scheme(_INT8, _INT8),
    "int6": Scheme(_INT6, _INT6),
    "int5": Scheme(_INT5, _INT6),
    "int4": Scheme(_INT4, _INT6, _INT5),
}
"""Heads stop at 6 bits: the errors of one reach every logit unmixed. With queries, keys and values are a sixth of a
model's weights or less, and a bit more there takes a quarter off what 4 bits cost."""


def has_feedback(quantize: str | None) -> bool:
    """Whether rounding wants to know what inputs matrices get."""
    return quantize in SCHEMES and SCHEMES[quantize].layer.feedback


def rounds_as_library(quantize: str | None, weight: Weight | None = None) -> bool:
    """Whether `--quantize` rounds as another library does, and, if it is given, this matrix.

    As in transformers, heads stay floats.
    """
    return quantize in LIBRARY_ROUNDINGS and (weight is None or weight.role == "layer")


def format_of(weight: Weight, quantize: str | None) -> CodeFormat | None:
    """The codes that a backend makes of a matrix under `--quantize`; None: it takes floats, or codes as they come.

    Tables that are only looked up stay floats, since a step reads few of their rows, and so do routers: they are small,
    and another choice of experts is a large error.
    """
    if quantize not in SCHEMES or weight.role in ("table", "router"):
        return None
    scheme = SCHEMES[quantize]
    if weight.role == "head":
        return scheme.head
    return scheme.keys if weight.gives_keys and scheme.keys is not None else scheme.layer


def planned_format(weight: Weight, quantize: str | None, dtype: str) -> CodeFormat | None:
    """The codes that native kernels keep of a matrix, for a plan; None: floats. dtype: that of serving."""
    if not rounds_as_library(quantize, weight):
        return format_of(weight, quantize)
    if quantize in ("bitsandbytes", "eetq") or (quantize == "fp8" and dtype != "float32"):
        return replace(CODE_FORMATS["int8"], group=weight.columns)
    four_bits = quantize in ("bitsandbytes-nf4", "bitsandbytes-fp4") and dtype != "float32" and weight.columns % 16 == 0
    return CODE_FORMATS["int4"] if four_bits else None  # whose header takes as much as two scales of 64 columns
