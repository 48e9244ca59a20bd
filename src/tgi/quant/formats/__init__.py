"""Stored formats, one file each: how a checkpoint keeps a matrix."""

from __future__ import annotations

from tgi.quant.checkpoint import Stored, check_method
from tgi.quant.formats.base import StoredFormat
from tgi.quant.formats.plain import Plain


def format_for(stored: Stored | None) -> StoredFormat:
    """The format of a checkpoint. Raises ModelError if nobody knows it."""
    if stored is None:
        return Plain()
    check_method(stored)
    # The formats need torch, which those who only plan with `Plain` have not loaded.
    from tgi.quant.formats.registry import FORMATS

    return FORMATS[stored.method](stored.settings)
