"""Bits that a quantised checkpoint keeps a matrix in, by what it says of itself, for plans. Imports no torch."""

from __future__ import annotations

import math
from typing import Any

from tgi.kernels.weight import Weight
from tgi.quant.checkpoint import Stored

SCALE_BITS, ZERO_BITS = 16, 8
"""As native kernels keep scales and zero points of a group."""
FLOAT_SCALE_BITS = 32
"""And scales of floats of 8 bits."""


def stored_bits(stored: Stored | None, weight: Weight) -> float | None:
    """Of a number of the matrix, with the scales; None where it is kept in floats.

    Modules that the writer left alone are counted as codes too: only their names in the checkpoint tell.
    """
    if stored is None or weight.role == "router":
        return None
    settings = stored.settings
    if stored.method == "gguf":
        return _number(settings.get("bits"), 2, 32) if settings.get("quantised") else None
    if weight.role != "layer":
        return None
    if stored.method == "mxfp4":  # of gpt-oss, whose experts alone are
        return 4 + SCALE_BITS / 32 if weight.within is not None and weight.within.stacked else None
    if stored.method == "bitsandbytes":
        if settings.get("load_in_4bit", settings.get("_load_in_4bit")):
            return 4 + SCALE_BITS / 64
        return 8 + SCALE_BITS / weight.columns
    if stored.method == "hqq":
        scheme: Any = settings.get("quant_config", settings)
        settings = scheme.get("weight_quant_params", scheme) if isinstance(scheme, dict) else {}
        return _in_groups(settings.get("nbits", 4), settings.get("group_size", 64), 2 * SCALE_BITS, weight)
    if stored.method == "awq":
        group = settings.get("group_size", settings.get("q_group_size"))
        return _in_groups(4, group, SCALE_BITS + ZERO_BITS, weight)
    if stored.method == "gptq":
        return _in_groups(settings.get("bits", 4), settings.get("group_size"), SCALE_BITS + ZERO_BITS, weight)
    if stored.method == "fp8":
        return 8 + FLOAT_SCALE_BITS / (128 if settings.get("weight_block_size") else weight.columns)
    if stored.method == "compressed-tensors":
        return _compressed(settings, weight)
    return None


def _compressed(settings: Any, weight: Weight) -> float | None:
    """The largest of the groups of a compressed-tensors checkpoint."""
    groups = settings.get("config_groups")
    schemes = (
        [group.get("weights") for group in groups.values() if isinstance(group, dict)]
        if isinstance(groups, dict)
        else []
    )
    found = [
        8 + FLOAT_SCALE_BITS / weight.columns
        if scheme.get("type") == "float" and scheme.get("num_bits") == 8
        else _in_groups(scheme.get("num_bits"), scheme.get("group_size"), SCALE_BITS + ZERO_BITS, weight)
        for scheme in schemes
        if isinstance(scheme, dict)
    ]
    if not found or None in found:
        return None
    return max(bits for bits in found if bits is not None)


def _in_groups(bits: Any, group: Any, group_bits: int, weight: Weight) -> float | None:
    number = _number(bits, 1, 8)
    if number is None:
        return None
    width = next((size for size in (4, 5, 6, 8) if number <= size), 8)  # as native panels hold them
    columns = _number(group, 1, weight.columns) or weight.columns
    return width + group_bits / columns


def _number(value: Any, least: float, most: float) -> float | None:
    """What is a number within bounds, of settings that anyone may have written."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good and least <= value <= most else None
