"""Stored formats, one file each: how a checkpoint keeps a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tgi.errors import ModelError
from tgi.quant.formats.base import StoredFormat
from tgi.quant.formats.plain import Plain

FORMATS: tuple[StoredFormat, ...] = (Plain(),)
"""Asked in turn; the first one that matches reads the checkpoint."""


def detect(config: dict[str, Any], formats: Sequence[StoredFormat] = FORMATS) -> StoredFormat:
    """The format of a checkpoint with this config.json. Raises ModelError if nobody knows it."""
    for candidate in formats:
        if candidate.matches(config):
            return candidate
    settings = config.get("quantization_config") or config.get("compression_config")
    found = settings.get("quant_method", "unknown") if isinstance(settings, dict) else "unknown"
    known = ", ".join(candidate.name for candidate in formats if candidate.quantised) or "none yet"
    raise ModelError(
        f"The checkpoint is quantised as {found}; formats supported: {known}. "
        "Serve the original, unquantised checkpoint of this model instead."
    )
