"""What a number on the command line can be: a range for each, and the sentence for a value outside of it."""

from __future__ import annotations

from dataclasses import dataclass

TOKENS = (1 << 31) - 1
"""More tokens than any cache holds; numbers of blocks and positions are signed 32-bit integers."""
BYTES = 1 << 50
"""One PiB, more than any machine has."""
SECONDS = 1_000_000_000
"""Thirty years, for those who mean "never"."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both among them unless open."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        """False for NaN, too."""
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def text(self, *, as_bytes: bool = False) -> str:
        """For documentation; amounts of memory have no bounds worth telling."""
        if as_bytes:
            return "above 0"
        lower, upper = ("above " if self.open_low else ""), ("below " if self.open_high else "")
        return f"{lower}{_number(self.low)} to {upper}{_number(self.high)}"

    def refusal(self, name: str, value: float) -> str:
        """The sentence for a value outside of it; TGI's where zero is the only thing to refuse at that end."""
        if value == 0 and self.low == 1:
            return f"`{name}` must be > 0"
        lower, upper = ">" if self.open_low else ">=", "<" if self.open_high else "<="
        return f"`{name}` must be {lower} {_number(self.low)} and {upper} {_number(self.high)}. Given: {value}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
