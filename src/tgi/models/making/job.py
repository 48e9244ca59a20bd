"""What a quantisation is to do, and what it says of it, line by line as JSON.

Written by the command, which has no torch, and by the process that works. Imports no torch.
"""

from __future__ import annotations

import msgspec

from tgi.child_lines import Failed

TOKENS = 16_384
"""Of a text that are used: all of the bundled one."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint to be made."""

    source: str
    """Directory of the original."""
    target: str
    method: str
    """One of `METHODS`."""
    keep: tuple[str, ...]
    """Files of the original that are copied as they are."""
    gguf: str | None = None
    """Type of a GGUF file, which the target then is; one of `GGUF_TYPES`."""
    bits: int = 4
    group: int = 128
    """Columns; -1: all of a row."""
    symmetric: bool = False
    act_order: bool = False
    percdamp: float = 0.01
    """Added to the diagonal of a Hessian, in parts of its mean."""
    calibration: str | None = None
    """A text file; None: the bundled text."""
    tokens: int = TOKENS
    """Of the text that are used."""
    threads: int = 1
    log_level: str = "info"
    json_output: bool = False


ROUNDINGS = ("int8", "int6", "int5", "int4")
"""What `--quantize` of the same name makes on the fly."""
GGUF_TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16", "F32")
"""What the `gguf` package can make."""
METHODS = ("gptq", "awq", *ROUNDINGS)


class Progress(msgspec.Struct, tag="progress"):
    """How far the work is, in units of its own."""

    done: float
    total: float
    what: str


class Made(msgspec.Struct, tag="made"):
    """The end."""

    bytes: int
    """Of the weight files."""
    original_bytes: int
    matrices: int
    """Those that are in codes now."""
    bits: float
    """Of a weight in them, with scales."""
    seconds: float


Line = Progress | Made | Failed
