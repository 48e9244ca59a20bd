"""The formats in which linear layers keep weights as codes: bits, range, groups, how a scale is searched.

Pure data, the same as the panels of csrc/formats.h have it. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

GROUP = 128
"""Columns of a row that share a scale; the last ones of a row may be fewer."""
HEADER_BYTES = 4
"""Scale and zero point of a group in native panels."""


@dataclass(frozen=True, slots=True)
class CodeFormat:
    """Unsigned codes of `bits` bits: weight = scale * (code - zero).

    Rounding on the fly uses the signed codes lowest ... highest (code - zero), and takes of some scales the one with
    the least squared error: those that map the peak to first, first + step, ... (`candidates` of them), and the
    least-squares refit of each.
    """

    name: str
    bits: int
    lowest: int
    highest: int
    first: float
    step: float
    candidates: int
    group: int = GROUP

    @property
    def zero(self) -> int:
        """The zero point of symmetric weights."""
        return 1 << (self.bits - 1)

    def packed_bytes(self, rows: int, columns: int) -> int:
        """Bytes of a matrix in native panels: rows and columns padded to 16, a header for each group."""
        rows, columns = (-(-size // 16) * 16 for size in (rows, columns))
        return rows * (columns * self.bits // 8 + HEADER_BYTES * -(-columns // self.group))


CODE_FORMATS = {
    format.name: format
    for format in (
        CodeFormat("int8", 8, -127, 127, 122.0, 1.0, 6),
        CodeFormat("int6", 6, -32, 31, 28.0, 0.5, 10),
        CodeFormat("int4", 4, -8, 7, 6.5, 0.25, 14),
    )
}
