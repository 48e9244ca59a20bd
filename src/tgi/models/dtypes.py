"""The dtype to serve in, by name. Imports no torch."""

from __future__ import annotations

from tgi.errors import ModelError

DTYPES = ("bfloat16", "float16", "float32")


def serving_dtype(wanted: str | None, checkpoint: str | None, device: str) -> str | None:
    """As wanted, else the checkpoint's; None if neither says. device: cpu, cuda. Raises ModelError.

    float16 becomes bfloat16 on a CPU unless it is wanted: of the same size, and keys and values cannot overflow.
    """
    if wanted is None:
        return "bfloat16" if checkpoint == "float16" and device == "cpu" else checkpoint
    if wanted not in DTYPES:
        raise ModelError(f"dtype {wanted} is not supported; supported are {', '.join(DTYPES)}")
    return wanted
