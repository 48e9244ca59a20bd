"""The formats in which linear layers keep weights as codes: bits, values, groups, how a scale is searched; and the
panels that hold codes of checkpoints.

Pure data, the same as the panels of csrc/formats.h have it. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "fp8_e4m3fn": 1, "fp8_e5m2": 1}
GROUP = 128
"""Columns of a row whose activations share a scale, and whose weights do, or each half of them; the last ones of a row
may be fewer."""
HEADER_BYTES = 4
"""Scale and zero point, or two scales, of a group in native panels."""

IQ4_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""The values of ggml's IQ4_NL: closer near zero, where most weights are."""


@dataclass(frozen=True, slots=True)
class CodeFormat:
    """Unsigned codes of `bits` bits: weight = scale * (code - zero), or scale * book[code].

    Rounding on the fly uses the values lowest ... highest, and takes of some scales the one with the least squared
    error: of those that map the peak to first, first + step, ... (`candidates` of them) the least-squares fit to the
    codes."""

    name: str
    bits: int
    lowest: int
    highest: int
    first: float
    step: float
    candidates: int
    group: int = GROUP
    scales: int = 1
    """Of the weights in a group: float32 with 24 bits, or 2 for its halves, bfloat16."""
    book: tuple[int, ...] | None = None
    """Ascending values of the codes; None: code - zero."""
    unit: int = 16
    """Columns of native panels come in multiples of this."""
    rotated: bool = False
    """Weights are kept, and activations rounded, in rotated form: see `kernels.rotation`."""
    feedback: bool = False
    """Rounding makes up for its errors in later columns, where it knows what inputs the matrix gets."""

    @property
    def zero(self) -> int:
        """The zero point of symmetric codes."""
        return 0 if self.book else 1 << (self.bits - 1)

    @property
    def columns(self) -> int:
        """Columns of a row of weights that share a scale."""
        return self.group // self.scales

    def packed_bytes(self, rows: int, columns: int) -> int:
        """Bytes of a matrix in native panels: rows and columns padded, a header for each group."""
        rows, columns = -(-rows // 16) * 16, -(-columns // self.unit) * self.unit
        return rows * (columns * self.bits // 8 + HEADER_BYTES * -(-columns // self.group))


CODE_FORMATS = {
    format.name: format
    for format in (
        CodeFormat("int8", 8, -127, 127, 122.0, 1.0, 6),
        CodeFormat("int6", 6, -32, 31, 28.0, 0.5, 10),
        CodeFormat("int5", 5, -16, 15, 13.5, 0.25, 14, scales=2, unit=32),
        CodeFormat("int4", 4, -8, 7, 6.5, 0.25, 14),
        CodeFormat("iq4_nl", 4, -127, 113, 104.0, 4.0, 14, scales=2, book=IQ4_NL),
    )
}


@dataclass(frozen=True, slots=True)
class CodePanel:
    """A native panel that holds unsigned codes of a checkpoint, with scales of any groups apart from them."""

    name: str
    bits: int
    unit: int = 16
    """Columns whose activations share a scale come in multiples of this."""


CODE_PANELS = {
    panel.name: panel
    for panel in (
        CodePanel("int2", 2),
        CodePanel("int3", 3),
        CodePanel("int4", 4),
        CodePanel("int5", 5, unit=32),
        CodePanel("int6", 6),
        CodePanel("int8", 8),
    )
}
"""By name, the smallest first. Nothing is rounded to 2 and 3 bits on the fly."""


def panel_of(bits: int, group: int) -> CodePanel:
    """The smallest panel for codes of so many bits, at most 8, in groups of a multiple of 16 columns."""
    return next(panel for panel in CODE_PANELS.values() if bits <= panel.bits and group % panel.unit == 0)
