"""Bits that a quantised checkpoint keeps a matrix in, by what it says of itself, for plans. Imports no torch."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from tgi.kernels.formats import GROUP, panel_of
from tgi.kernels.native.footprint import NARROW_BYTES
from tgi.kernels.weight import Weight
from tgi.quant.checkpoint import Stored

FLOAT_SCALE_BITS = 32
"""Of floats of 8 bits, and of all where nothing is rounded."""


def stored_bits(stored: Stored | None, weight: Weight, dtype: str) -> float | None:
    """Of a number of the matrix, with the scales; None where it is kept in floats of `dtype`.

    Modules that the writer left alone are counted as codes too: only their names in the checkpoint tell.
    """
    if stored is None or weight.role == "router":
        return None
    settings, exact = stored.settings, dtype == "float32"
    scale = FLOAT_SCALE_BITS if exact else 16
    if stored.method == "gguf":
        kept = settings.get("kept_bits")
        bits = kept.get("float32" if exact else "bfloat16") if isinstance(kept, dict) else settings.get("bits")
        return _number(bits, 2, 32) if settings.get("quantised") else None
    if weight.role != "layer":
        return None
    if stored.method == "mxfp4":  # of gpt-oss, whose experts alone are
        return 4 + scale / 32 if weight.within is not None and weight.within.stacked else None
    if stored.method == "bitsandbytes":
        if settings.get("load_in_4bit", settings.get("_load_in_4bit")):
            return None if exact else 4 + scale / 64
        return 8 + scale / weight.columns
    if stored.method == "hqq":
        scheme: Any = settings.get("quant_config", settings)
        settings = scheme.get("weight_quant_params", scheme) if isinstance(scheme, dict) else {}
        return _in_groups(settings.get("nbits", 4), settings.get("group_size", 64), 2 * scale, weight)
    if stored.method == "awq":
        group = settings.get("group_size", settings.get("q_group_size"))
        return _in_groups(4, group, scale, weight, zeros=True)
    if stored.method == "gptq":
        return _in_groups(settings.get("bits", 4), settings.get("group_size"), scale, weight, zeros=True)
    if stored.method == "fp8":
        return None if exact else 8 + FLOAT_SCALE_BITS / (128 if settings.get("weight_block_size") else weight.columns)
    if stored.method == "compressed-tensors":
        return _compressed(settings, weight, scale, exact=exact)
    if stored.method == "torchao":
        return _torchao(settings, weight, scale, exact=exact)
    return None


def _torchao(settings: Any, weight: Weight, scale: int, *, exact: bool) -> float | None:
    """By the name of the configuration and the size of its groups, whichever version wrote them."""
    text = json.dumps([settings.get("quant_type"), settings.get("quant_type_kwargs")], default=str).lower()
    found, group = re.search(r"(float|int)(\d)", text), re.search(r'group_?size"?: ?(\d{1,6})', text)
    if found is None or (exact and found[1] == "float"):
        return None
    if found[1] == "float":
        return 8 + FLOAT_SCALE_BITS / weight.columns
    bits, default = int(found[2]), 128 if found[2] == "4" else None
    return _in_groups(bits, int(group[1]) if group else default, (2 if bits < 8 else 1) * scale, weight)


def _compressed(settings: Any, weight: Weight, scale: int, *, exact: bool) -> float | None:
    """The largest of the groups of a compressed-tensors checkpoint."""
    groups = settings.get("config_groups")
    schemes = (
        [group.get("weights") for group in groups.values() if isinstance(group, dict)]
        if isinstance(groups, dict)
        else []
    )
    found: list[float | None] = []
    for scheme in schemes:
        if isinstance(scheme, dict) and scheme.get("type") == "float" and scheme.get("num_bits") == 8:
            found.append(None if exact else 8 + FLOAT_SCALE_BITS / weight.columns)
        elif isinstance(scheme, dict):
            found.append(_in_groups(scheme.get("num_bits"), scheme.get("group_size"), scale, weight, zeros=True))
    if not found or None in found:
        return None
    return max(bits for bits in found if bits is not None)


def _in_groups(bits: Any, group: Any, group_bits: int, weight: Weight, *, zeros: bool = False) -> float | None:
    """zeros: with zero points in 4 or 8 bits, as native kernels keep them."""
    number = _number(bits, 1, 8)
    if number is None:
        return None
    columns = _number(group, 1, weight.columns) or weight.columns
    unit = max(16, math.gcd(int(columns), GROUP)) if columns < weight.columns else GROUP
    if zeros:
        group_bits += 4 if number <= 4 else 8
    return panel_of(math.ceil(number), unit).bits + group_bits / columns


GGML_KEPT = {
    "Q4_0": (4.0, 1 / 32),
    "Q4_1": (4.0, 2 / 32),
    "Q5_0": (5.0, 1 / 32),
    "Q5_1": (5.0, 2 / 32),
    "Q8_0": (8.0, 1 / 32),
    "Q2_K": (2 + 8 / 16 + 32 / 256, 0.0),
    "Q3_K": (3 + 8 / 16 + 16 / 256, 0.0),
    "Q4_K": (4 + 16 / 32 + 32 / 256, 0.0),
    "Q5_K": (5 + 16 / 32 + 32 / 256, 0.0),
    "Q6_K": (6 + 8 / 16 + 16 / 256, 0.0),
    "IQ4_NL": (4.0, 1 / 32),
    "IQ4_XS": (4 + 8 / 32 + 16 / 256, 0.0),
    "MXFP4": (4.0, 1 / 32),
}
"""ggml's types -> bits of a number in native panels, and the floats that are its scales and minimums."""


def ggml_bits(kind: str, dtype: str) -> float:
    """Of a number of a matrix in a GGUF file, in memory; what has no codes, or other ones, is in `dtype`."""
    wide = dtype == "float32"
    if kind not in GGML_KEPT:
        return 32.0 if wide else 8 * NARROW_BYTES
    bits, floats = GGML_KEPT[kind]
    return bits + floats * (32 if wide else 16)


def _number(value: Any, least: float, most: float) -> float | None:
    """What is a number within bounds, of settings that anyone may have written."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good and least <= value <= most else None
