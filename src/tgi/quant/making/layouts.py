"""How GPTQ and AWQ files keep codes: the reverse of what `quant.formats` reads.

Tensors of a module with K columns and N rows, see `formats.gptq` (its first version, zero points less one) and
`formats.awq` (GEMM).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from tgi.quant.formats.awq import NIBBLES, PER_WORD, Awq
from tgi.quant.formats.bits import WORD
from tgi.quant.formats.gptq import Gptq
from tgi.quant.formats.modules import ByModule, Part
from tgi.quant.making.gptq import Rounded


@dataclass(frozen=True, slots=True)
class Layout:
    """One way of keeping codes."""

    tensors: Callable[[Rounded], dict[str, torch.Tensor]]
    """Of a module, by the ends of their names."""
    weights: Callable[[Mapping[str, torch.Tensor], int], torch.Tensor]
    """What these stand for, [rows, columns] float32, columns given."""
    fits: Callable[[int, int, int], bool]
    """Whether a module of so many rows and columns can be kept so, in groups of so many columns."""
    needs: str
    """What it takes, for messages."""


def gptq_layout(bits: int, group: int) -> Layout:
    """Zero points must be at least 1."""
    settings = {"bits": bits, "group_size": group}
    return Layout(
        lambda rounded: {
            "qweight": stream(rounded.codes, bits).t().contiguous(),
            "qzeros": stream((rounded.zeros - 1).t().to(torch.uint8), bits),
            "scales": rounded.scales.t().contiguous().half(),
            "g_idx": rounded.of_column.to(torch.int32),
        },
        lambda tensors, columns: _read(Gptq(settings), tensors, columns),
        lambda rows, columns, group: rows * bits % WORD == 0 and columns * bits % WORD == 0,
        f"rows and columns must be multiples of {WORD // math.gcd(WORD, bits)}",
    )


def awq_layout() -> Layout:
    """4 bits."""
    return Layout(
        lambda rounded: {
            "qweight": _eight_rows(rounded.codes),
            "qzeros": _eight_rows(rounded.zeros.to(torch.uint8)),
            "scales": rounded.scales.t().contiguous().half(),
        },
        lambda tensors, columns: _read(Awq({}), tensors, columns),
        lambda rows, columns, group: rows % PER_WORD == 0 and (group < 0 or columns % group == 0),
        "columns must be a multiple of --groupsize, rows of 8",
    )


class Tensors:
    """A `WeightSource` of one module, called m."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = {f"m.{end}": tensor for end, tensor in tensors.items()}

    def has(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self._tensors[name].dtype

    def read(self, name: str, into: torch.Tensor, index: tuple[slice, ...] = ()) -> None:
        into.copy_(self._tensors[name][index])


def _read(format: ByModule, tensors: Mapping[str, torch.Tensor], columns: int) -> torch.Tensor:
    rows = tensors["scales"].shape[1]
    return format.read(Tensors(tensors), Part("m", rows, columns, 0, rows)).dequantise()


def stream(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """codes [rows, count] uint8 -> words [rows, count bits / 32] int32, code after code from the lowest bit on."""
    if WORD % bits == 0:
        return _words(codes.unflatten(1, (-1, WORD // bits)), bits)
    each = codes.unsqueeze(-1) >> torch.arange(bits, dtype=torch.uint8) & 1
    return _words(each.flatten(1).unflatten(1, (-1, WORD)), 1)


def _eight_rows(codes: torch.Tensor) -> torch.Tensor:
    """codes [N, columns] -> [columns, N / 8] int32"""
    eight = codes.t().unflatten(1, (-1, PER_WORD))
    placed = torch.empty_like(eight)
    placed[..., list(NIBBLES)] = eight
    return _words(placed, 4)


def _words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """codes [..., n] of a word each, n bits of 32 in all -> [...] int32"""
    words = torch.zeros(codes.shape[:-1], dtype=torch.int32)
    for place in range(codes.shape[-1]):
        words |= codes[..., place].int() << (bits * place)
    return words
