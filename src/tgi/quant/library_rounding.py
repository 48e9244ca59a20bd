"""Rounding ordinary weights on the fly as other libraries do: bitsandbytes, EETQ and fp8 of `--quantize`.

Only weights are: what becomes of activations is up to the backend. LLM.int8 (Dettmers et al. 2022) keeps columns of
large activations in floats, by what is in the batch; no row may depend on that here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch
import torch.nn.functional as F

from tgi.kernels.coded import CodedWeight
from tgi.kernels.weight import Weight

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Quantiles of a normal distribution (Dettmers et al. 2023)."""
FP4 = tuple(sign * value / 12 for sign in (1, -1) for value in (0, 0.0625, 8, 12, 4, 6, 2, 3))
"""Floats of 1 sign, 2 exponent and 1 mantissa bit, over their largest one."""
BOOKS = {"bitsandbytes-nf4": NF4, "bitsandbytes-fp4": FP4}
BLOCK = 64
"""Weights of a row-major matrix that share a scale in 4 bits."""
NESTED_BLOCK = 256
"""Scales that share one themselves."""
LARGEST_E4M3 = 448.0

Floats = Callable[[], Iterator[tuple[int, torch.Tensor]]]
"""Reads a matrix from its first row to its last: (first row, rows [count, columns]) of each piece."""


def round_as(method: str, weight: Weight, floats: Floats) -> Iterator[tuple[int, CodedWeight]]:
    """The pieces of a matrix as codes. method: one of `flags.LIBRARY_ROUNDINGS`."""
    if method in BOOKS:
        yield from _four_bits(BOOKS[method], weight, floats)
        return
    rounded = to_e4m3 if method == "fp8" else to_int8
    for first, piece in floats():
        yield first, rounded(piece.float())


def to_int8(rows: torch.Tensor) -> CodedWeight:
    """rows [count, columns] float32 -> -127 to 127 with a scale for each row: LLM.int8 and EETQ."""
    peaks = rows.abs().amax(1, keepdim=True)
    codes = (rows * torch.where(peaks > 0, 127.0 / peaks, 0.0)).round_().add_(128.0).to(torch.uint8)
    return CodedWeight(codes, peaks / 127.0, rows.shape[1], torch.full_like(peaks, 128.0))


def to_e4m3(rows: torch.Tensor) -> CodedWeight:
    """rows [count, columns] float32 -> floats of 4 exponent and 3 mantissa bits with a scale for each row."""
    scales = rows.abs().amax(1, keepdim=True) / LARGEST_E4M3
    codes = torch.where(scales > 0, rows / scales, 0.0).to(torch.float8_e4m3fn).view(torch.uint8)
    return CodedWeight(codes, scales, rows.shape[1], codebook=_e4m3_values())


@cache
def _e4m3_values() -> torch.Tensor:
    return torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()


def _four_bits(book: Sequence[float], weight: Weight, floats: Floats) -> Iterator[tuple[int, CodedWeight]]:
    """In blocks, with scales that are rounded to 8 bits as bitsandbytes does by default.

    Scales are rounded relative to the mean of their matrix, so they come first, in a reading of their own.
    """
    modules = {rows.first: rows.name for rows in weight.stored_rows()}
    peaks: dict[str, list[torch.Tensor]] = {}
    name = weight.names[0]
    for first, piece in floats():
        name = modules.get(first, name)
        peaks.setdefault(name, []).append(_blocks(piece).abs().amax(1))
    scales = {
        name: iter(nested(torch.cat(parts)).split([len(part) for part in parts])) for name, parts in peaks.items()
    }
    left = {name: iter(parts) for name, parts in peaks.items()}
    for first, piece in floats():
        name = modules.get(first, name)
        yield first, to_four_bits(piece, book, next(left[name]), next(scales[name]))


def to_four_bits(rows: torch.Tensor, book: Sequence[float], peaks: torch.Tensor, scales: torch.Tensor) -> CodedWeight:
    """rows [count, columns] of any float dtype -> codes that name values of the book.

    peaks [blocks] float32: the largest weight of each block; scales: the same as they are kept. Blocks go on from one
    row to the next, so that rows of other lengths have a scale for each of smaller groups.
    """
    count, columns = rows.shape
    blocks = _blocks(rows) * torch.where(peaks > 0, 1 / peaks, 0.0).unsqueeze(1)
    codes = nearest(blocks.flatten()[: count * columns], book).view(count, columns)
    group = math.gcd(columns, BLOCK)
    of_group = torch.arange(0, count * columns, group) // BLOCK
    values = torch.tensor(book, dtype=torch.float32)
    return CodedWeight(codes, scales[of_group].view(count, -1), group, codebook=values)


def nearest(values: torch.Tensor, book: Sequence[float]) -> torch.Tensor:
    """values [n] float32 -> codes [n] uint8 of the nearest entries of the book; of two as near, the lower one."""
    ascending = sorted(set(book))
    numbers = torch.tensor([book.index(value) for value in ascending], dtype=torch.uint8)
    entries = torch.tensor(ascending, dtype=torch.float32)
    return numbers[torch.bucketize(values, (entries[1:] + entries[:-1]) / 2, out_int32=True)]


def nested(peaks: torch.Tensor) -> torch.Tensor:
    """Scales [blocks] float32 as they are kept: 8 bits of what each differs from their mean, in blocks of their own."""
    mean = peaks.mean()
    blocks = F.pad(peaks - mean, (0, -len(peaks) % NESTED_BLOCK)).view(-1, NESTED_BLOCK)
    outer = blocks.abs().amax(1, keepdim=True)
    values = dynamic_values()
    codes = torch.bucketize(blocks * torch.where(outer > 0, 1 / outer, 0.0), (values[1:] + values[:-1]) / 2)
    return (values[codes] * outer + mean).flatten()[: len(peaks)]


@cache
def dynamic_values() -> torch.Tensor:
    """[256] float32, ascending: numbers of a sign, a unary exponent of base 10 and a linear fraction in the bits that
    are left (Dettmers 2015)."""
    values = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, (1 << exponent) + 1)
        means = 10.0 ** (exponent - 6) * (edges[:-1] + edges[1:]) / 2
        values += [*means.tolist(), *(-means).tolist()]
    return torch.tensor(sorted(values), dtype=torch.float32)


def _blocks(rows: torch.Tensor) -> torch.Tensor:
    """[blocks, 64] float32, the last one filled up with zeros."""
    flat = rows.float().flatten()
    return F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
