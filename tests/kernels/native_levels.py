"""Which native levels this machine can test, for `test_native_*`."""

from __future__ import annotations

import pytest

from tgi.kernels.native.library import Library, NativeUnavailable, levels_here, load

ROUNDING_LEVELS = ("avx512_bf16", "avx512_amx")
"""Levels that multiply pairs of bfloat16, and so round activations of bfloat16 layers to it."""


def libraries() -> list:
    """One pytest parameter for each level; levels that cannot run here are skipped with the reason."""
    return [pytest.param(level, id=level) for level in levels_here()]


def open_level(level: str) -> Library:
    try:
        return load(level)
    except NativeUnavailable as reason:
        pytest.skip(str(reason))
