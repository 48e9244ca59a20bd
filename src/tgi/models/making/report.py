"""How a job says how far it is, and what it has made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tgi.kernels.weight import Weight

Say: TypeAlias = Callable[[float, float, str], None]
"""(done, in total, of what)"""


@dataclass
class Report:
    """Sums over the matrices that are in codes now."""

    matrices: int = 0
    numbers: int = 0
    coded_bytes: int = 0
    bytes: int = 0
    """Of the weight files."""

    def add(self, weight: Weight, coded_bytes: int) -> None:
        self.matrices += 1
        self.numbers += weight.rows * weight.columns
        self.coded_bytes += coded_bytes

    @property
    def bits(self) -> float:
        """Of a weight in codes, with what comes with them."""
        return 8 * self.coded_bytes / max(1, self.numbers)
