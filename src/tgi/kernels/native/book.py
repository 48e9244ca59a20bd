"""Code books in 8 bits: the values of 16 codes as bytes, which kernels look up before they multiply."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

CODES, ZERO, HIGHEST = 16, 128, 127


@dataclass(frozen=True, slots=True)
class Book:
    """A value is factor * (values[code] - 128), nearly."""

    values: tuple[int, ...]
    factor: float
    exact: bool
    """Whether that holds to the bit."""


def book_of(codebook: torch.Tensor) -> Book | None:
    """The bytes for a code book [codes] of at most 16 codes; None for a longer one, and for one that has no numbers."""
    if len(codebook) > CODES or not bool(codebook.isfinite().all()):
        return None
    return _rounded(tuple(codebook.tolist()))


@cache
def _rounded(values: tuple[float, ...]) -> Book:
    """Of some factors that give the largest value 1 to 127, the one with the least squared error.

    Books of whole numbers, halves and the like are exact; nf4 has an error of 0.2 % and fp4 one of 0.1 % of the largest
    value (root mean square), where the values themselves lie about 10 % apart.
    """
    exact = torch.tensor(values, dtype=torch.float64)
    largest = exact.abs().max()
    if largest == 0:
        return Book((ZERO,) * CODES, 1.0, True)
    units = torch.arange(1, 2 * HIGHEST + 1) / 2  # the code of the largest value
    rounded = (exact / largest * units.unsqueeze(1)).round()
    factors = (rounded * exact).sum(1) / rounded.square().sum(1).clamp(min=1)
    errors = (rounded * factors.unsqueeze(1) - exact).square().sum(1)
    best = int(errors.argmin())
    codes, factor = rounded[best], float(factors[best])
    found = [int(code) + ZERO for code in codes] + [ZERO] * (CODES - len(values))
    return Book(tuple(found), factor, bool(torch.equal((codes * factor).float(), exact.float())))
