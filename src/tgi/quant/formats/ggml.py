"""Blocks of ggml's types as codes: what GGUF files hold.

A row is a sequence of blocks; of 32 numbers, or of 256 with scales of 4 to 8 bits for each 16 or 32 and one or two
float16 for all of them. Values have the bits that the `gguf` package gives them in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tgi.errors import ModelError
from tgi.kernels.coded import CodedWeight
from tgi.kernels.formats import IQ4_NL
from tgi.quant.formats.microscaling import E2M1

Bytes = torch.Tensor  # [rows, blocks, bytes] uint8
SUPER = 256


def decode(kind: str, raw: torch.Tensor) -> CodedWeight | torch.Tensor:
    """raw [rows, bytes] uint8: rows of blocks -> their codes; floats [rows, columns] of types without codes.

    Raises ModelError for a type of which only the `gguf` package knows the tables, where that is not installed.
    """
    if kind not in READERS:
        return _by_package(kind, raw)
    size, read = READERS[kind]
    return read(raw.view(len(raw), -1, size))


def _halves(blocks: Bytes, at: int) -> torch.Tensor:
    """The float16 at a byte of each block, [rows, blocks] float32."""
    return blocks[..., at : at + 2].contiguous().view(torch.float16).squeeze(-1).float()


def _pairs(packed: Bytes, run: int) -> torch.Tensor:
    """Codes of 4 bits: of each `run` bytes first the lower halves, then the upper ones; [rows, blocks, codes]."""
    runs = packed.unflatten(-1, (-1, run))
    return torch.stack((runs & 15, runs >> 4), -2).flatten(-3)


def _bit_runs(packed: Bytes, bits: int, run: int) -> torch.Tensor:
    """The same of codes of 1 or 2 bits: of each `run` bytes all lowest ones, then all next ones."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8).view(-1, 1)
    return (packed.unflatten(-1, (-1, 1, run)) >> shifts & (1 << bits) - 1).flatten(-3)


def _coded(codes: torch.Tensor, scales: torch.Tensor, group: int, mins: torch.Tensor, **steps) -> CodedWeight:
    return CodedWeight(codes.flatten(1), scales.flatten(1), group, mins=mins.flatten(1), **steps)


def _symmetric(codes: torch.Tensor, scales: torch.Tensor, group: int, zero: int, **steps) -> CodedWeight:
    scales = scales.flatten(1)
    return CodedWeight(codes.flatten(1), scales, group, torch.full_like(scales, zero), **steps)


def _in_book(codes: torch.Tensor, scales: torch.Tensor, book: tuple[float, ...], **steps) -> CodedWeight:
    values = torch.tensor(book, dtype=torch.float32)
    return CodedWeight(codes.flatten(1), scales.flatten(1), 32, codebook=values, **steps)


def _steps(blocks: Bytes, scales: int, mins: int | None = None) -> dict[str, torch.Tensor]:
    """Of types whose scales are whole numbers times a float16 for all 256 numbers; where those are in a block."""
    found = {"steps": _halves(blocks, scales)}
    return found if mins is None else {**found, "min_steps": _halves(blocks, mins)}


def _q4_0(blocks: Bytes) -> CodedWeight:
    return _symmetric(_pairs(blocks[..., 2:], 16), _halves(blocks, 0), 32, 8)


def _q4_1(blocks: Bytes) -> CodedWeight:
    return _coded(_pairs(blocks[..., 4:], 16), _halves(blocks, 0), 32, mins=_halves(blocks, 2))


def _fifth(blocks: Bytes, at: int) -> torch.Tensor:
    """Codes of 5 bits: four bytes of upper bits, one a number, then sixteen of lower ones."""
    upper = blocks[..., at : at + 4].unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8) & 1
    return _pairs(blocks[..., at + 4 :], 16) | upper.flatten(-2) << 4


def _q5_0(blocks: Bytes) -> CodedWeight:
    return _symmetric(_fifth(blocks, 2), _halves(blocks, 0), 32, 16)


def _q5_1(blocks: Bytes) -> CodedWeight:
    return _coded(_fifth(blocks, 4), _halves(blocks, 0), 32, mins=_halves(blocks, 2))


def _q8_0(blocks: Bytes) -> CodedWeight:
    return _symmetric(blocks[..., 2:] ^ 128, _halves(blocks, 0), 32, 128)


def _q2_k(blocks: Bytes) -> CodedWeight:
    packed = blocks[..., :16]
    scales = _halves(blocks, 80).unsqueeze(-1) * (packed & 15).float()
    mins = _halves(blocks, 82).unsqueeze(-1) * (packed >> 4).float()
    return _coded(_bit_runs(blocks[..., 16:80], 2, 32), scales, 16, mins=-mins, **_steps(blocks, 80, 82))


def _q3_k(blocks: Bytes) -> CodedWeight:
    upper, lower, packed = blocks[..., :32], blocks[..., 32:96], blocks[..., 96:108]
    low = torch.cat((packed[..., :8] & 15, packed[..., :8] >> 4), -1)
    high = _bit_runs(packed[..., 8:], 2, 4)
    scales = _halves(blocks, 108).unsqueeze(-1) * ((low | high << 4).float() - 32)
    return _symmetric(_bit_runs(lower, 2, 32) | _bit_runs(upper, 1, 32) << 2, scales, 16, 4, **_steps(blocks, 108))


def _scales_and_mins(blocks: Bytes) -> tuple[torch.Tensor, torch.Tensor]:
    """Of Q4_K and Q5_K: eight scales and eight minimums of 6 bits in twelve bytes, [rows, blocks, 8] each."""
    first, second, rest = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    scales = torch.cat((first & 63, rest & 15 | first >> 2 & 48), -1)
    mins = torch.cat((second & 63, rest >> 4 | second >> 2 & 48), -1)
    whole, least = _halves(blocks, 0).unsqueeze(-1), _halves(blocks, 2).unsqueeze(-1)
    return whole * scales.float(), -(least * mins.float())


def _q4_k(blocks: Bytes) -> CodedWeight:
    scales, mins = _scales_and_mins(blocks)
    return _coded(_pairs(blocks[..., 16:], 32), scales, 32, mins=mins, **_steps(blocks, 0, 2))


def _q5_k(blocks: Bytes) -> CodedWeight:
    scales, mins = _scales_and_mins(blocks)
    codes = _pairs(blocks[..., 48:], 32) | _bit_runs(blocks[..., 16:48], 1, 32) << 4
    return _coded(codes, scales, 32, mins=mins, **_steps(blocks, 0, 2))


def _q6_k(blocks: Bytes) -> CodedWeight:
    codes = _pairs(blocks[..., :128], 64) | _bit_runs(blocks[..., 128:192], 2, 32) << 4
    scales = _halves(blocks, 208).unsqueeze(-1) * blocks[..., 192:208].contiguous().view(torch.int8).float()
    return _symmetric(codes, scales, 16, 32, **_steps(blocks, 208))


def _iq4_nl(blocks: Bytes) -> CodedWeight:
    return _in_book(_pairs(blocks[..., 2:], 16), _halves(blocks, 0), IQ4_NL)


def _iq4_xs(blocks: Bytes) -> CodedWeight:
    low = torch.stack((blocks[..., 4:8] & 15, blocks[..., 4:8] >> 4), -1).flatten(-2)
    high = (blocks[..., 2:4].unsqueeze(-1) >> torch.arange(0, 8, 2, dtype=torch.uint8) & 3).flatten(-2)
    scales = _halves(blocks, 0).unsqueeze(-1) * ((low | high << 4).float() - 32)
    return _in_book(_pairs(blocks[..., 8:], 16), scales, IQ4_NL, **_steps(blocks, 0))


def _mxfp4(blocks: Bytes) -> CodedWeight:
    bits = blocks[..., 0].int()  # of half the power, which is finite for all of them; values are twice as large
    halves = torch.where(bits < 2, 1 << 21 << bits, (bits - 1) << 23).view(torch.float32)
    return _in_book(_pairs(blocks[..., 1:], 16), halves, tuple(2 * value for value in E2M1))


READERS: dict[str, tuple[int, Callable[[Bytes], CodedWeight]]] = {
    "Q4_0": (18, _q4_0),
    "Q4_1": (20, _q4_1),
    "Q5_0": (22, _q5_0),
    "Q5_1": (24, _q5_1),
    "Q8_0": (34, _q8_0),
    "Q2_K": (84, _q2_k),
    "Q3_K": (110, _q3_k),
    "Q4_K": (144, _q4_k),
    "Q5_K": (176, _q5_k),
    "Q6_K": (210, _q6_k),
    "IQ4_NL": (18, _iq4_nl),
    "IQ4_XS": (136, _iq4_xs),
    "MXFP4": (17, _mxfp4),
}
"""Type -> bytes of a block, and what makes codes of blocks."""


def _by_package(kind: str, raw: torch.Tensor) -> torch.Tensor:
    """Types with tables of thousands of entries."""
    try:
        import gguf
    except ImportError:
        raise ModelError(
            f"Weights of type {kind} are read with the package gguf, which is not installed: `pip install gguf`, or "
            "choose a file of another type, such as Q4_K_M"
        ) from None
    return torch.from_numpy(gguf.dequantize(raw.contiguous().numpy(), gguf.GGMLQuantizationType[kind]))
