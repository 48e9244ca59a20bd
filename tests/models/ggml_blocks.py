"""Writes blocks of ggml's types that the `gguf` package reads but does not write, plainly and from their layout.

Scales are those of the range of the numbers, not the best ones. Rows must be whole blocks.
"""

from __future__ import annotations

from collections.abc import Callable

import gguf
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
INSTEAD = {"Q2_K": "IQ4_NL", "Q3_K": "IQ4_NL", "IQ4_XS": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What llama.cpp takes for rows that are no whole blocks of 256."""


def write_blocks(values: NDArray[np.float32], kind: str) -> tuple[Bytes, gguf.GGMLQuantizationType]:
    """values [..., columns] -> bytes [..., n] and the type they are in, `kind` or what stands in for it."""
    if kind in INSTEAD and values.shape[-1] % 256:
        kind = INSTEAD[kind]
    type = gguf.GGMLQuantizationType[kind]
    if kind not in WRITERS:
        return gguf.quantize(values, type).view(np.uint8), type
    columns, write = WRITERS[kind]
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, columns)
    return write(blocks).reshape(*values.shape[:-1], -1), type


def _inverse(scale: Floats) -> Floats:
    return np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)


def _half(values: Floats) -> tuple[Bytes, Floats]:
    """[n] as float16: bytes [n, 2], and what they say."""
    kept = values.astype(np.float16)
    return kept.view(np.uint8).reshape(-1, 2), kept.astype(np.float32)


def _scaled(values: Floats, most: int) -> tuple[NDArray[np.int64], Bytes, Floats]:
    """Scales [n, parts] as whole numbers up to `most` of one for the block: numbers, bytes and values of the latter."""
    raw, unit = _half(np.abs(values).max(1) / most)
    numbers = np.clip(np.rint(values * _inverse(unit)[:, None]), -most, most).astype(np.int64)
    return numbers, raw, numbers * unit[:, None]


def _with_mins(blocks: Floats, width: int, bits: int, most: int):
    """Codes [n, parts, width], numbers of scales and of minimums [n, parts], bytes of both units."""
    parts = blocks.reshape(len(blocks), -1, width)
    low = np.minimum(parts.min(2), 0)
    scales, unit, scale = _scaled((parts.max(2) - low) / ((1 << bits) - 1), most)
    mins, min_unit, lowest = _scaled(-low, most)
    codes = np.rint((parts + lowest[..., None]) * _inverse(scale)[..., None])
    return np.clip(codes, 0, (1 << bits) - 1).astype(np.uint8), scales, mins, unit, min_unit


def _twelve(scales: NDArray[np.int64], mins: NDArray[np.int64]) -> Bytes:
    """Eight scales and eight minimums of 6 bits in 12 bytes, as Q4_K and Q5_K have them."""
    s, m = scales, mins
    first = s[:, :4] | (s[:, 4:] >> 4) << 6, m[:, :4] | (m[:, 4:] >> 4) << 6
    return np.concatenate((*first, (s[:, 4:] & 15) | (m[:, 4:] & 15) << 4), 1).astype(np.uint8)


def _q4_k(blocks: Floats) -> Bytes:
    codes, scales, mins, unit, min_unit = _with_mins(blocks, 32, 4, 63)
    pairs = codes.reshape(-1, 4, 2, 32)
    nibbles = (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)
    return np.concatenate((unit, min_unit, _twelve(scales, mins), nibbles), 1)


def _q5_k(blocks: Floats) -> Bytes:
    codes, scales, mins, unit, min_unit = _with_mins(blocks, 32, 5, 63)
    pairs = (codes & 15).reshape(-1, 4, 2, 32)
    nibbles = (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)
    high = np.zeros((len(blocks), 32), np.uint8)
    for part in range(8):
        high |= (codes[:, part] >> 4) << part
    return np.concatenate((unit, min_unit, _twelve(scales, mins), high, nibbles), 1)


def _q2_k(blocks: Floats) -> Bytes:
    codes, scales, mins, unit, min_unit = _with_mins(blocks, 16, 2, 15)
    fours = codes.reshape(-1, 2, 4, 32)
    packed = (fours << np.array([0, 2, 4, 6], np.uint8)[:, None]).sum(2, dtype=np.uint8).reshape(-1, 64)
    return np.concatenate(((scales | mins << 4).astype(np.uint8), packed, unit, min_unit), 1)


def _symmetric(blocks: Floats, zero: int, bits: int, most: int):
    """Codes [n, 16, 16] above zero point `zero`, numbers of scales [n, 16], bytes of their unit."""
    parts = blocks.reshape(-1, 16, 16)
    scales, unit, scale = _scaled(np.abs(parts).max(2) / (zero - 1), most)
    codes = np.rint(parts * _inverse(scale)[..., None]) + zero
    return np.clip(codes, 0, (1 << bits) - 1).astype(np.uint8), scales, unit


def _q3_k(blocks: Floats) -> Bytes:
    codes, scales, unit = _symmetric(blocks, 4, 3, 31)
    fours = (codes & 3).reshape(-1, 2, 4, 32)
    packed = (fours << np.array([0, 2, 4, 6], np.uint8)[:, None]).sum(2, dtype=np.uint8).reshape(-1, 64)
    high = np.zeros((len(blocks), 32), np.uint8)
    for part, bits in enumerate((codes >> 2).reshape(-1, 8, 32).swapaxes(0, 1)):
        high |= bits << part
    s = scales + 32
    upper = sum((s[:, 4 * part : 4 * part + 4] >> 4) << (2 * part) for part in range(4))
    kept = np.concatenate(((s[:, :8] & 15) | (s[:, 8:] & 15) << 4, upper), 1).astype(np.uint8)
    return np.concatenate((high, packed, kept, unit), 1)


def _q6_k(blocks: Floats) -> Bytes:
    codes, scales, unit = _symmetric(blocks, 32, 6, 127)
    halves = codes.reshape(-1, 2, 4, 32)
    low = ((halves[:, :, :2] & 15) | (halves[:, :, 2:] & 15) << 4).reshape(-1, 128)
    high = ((halves >> 4) << np.array([0, 2, 4, 6], np.uint8)[:, None]).sum(2, dtype=np.uint8).reshape(-1, 64)
    return np.concatenate((low, high, scales.astype(np.int8).view(np.uint8), unit), 1)


def _iq4(parts: Floats, scale: Floats) -> Bytes:
    """parts [..., 32] -> the nearest values of the book, two in a byte: [..., 16]"""
    scaled = parts * _inverse(scale)[..., None]
    codes = np.searchsorted((IQ4[1:] + IQ4[:-1]) / 2, scaled).astype(np.uint8)
    return codes[..., :16] | codes[..., 16:] << 4


def _iq4_nl(blocks: Floats) -> Bytes:
    raw, scale = _half(np.abs(blocks).max(1) / 113)
    return np.concatenate((raw, _iq4(blocks, scale)), 1)


def _iq4_xs(blocks: Floats) -> Bytes:
    parts = blocks.reshape(-1, 8, 32)
    numbers, unit, scale = _scaled(np.abs(parts).max(2) / 113, 31)
    s = numbers + 32
    low = (s[:, ::2] & 15 | (s[:, 1::2] & 15) << 4).astype(np.uint8)
    high = ((s >> 4) << np.arange(0, 16, 2)).sum(1).astype(np.uint16).view(np.uint8).reshape(-1, 2)
    return np.concatenate((unit, high, low, _iq4(parts, scale).reshape(-1, 128)), 1)


WRITERS: dict[str, tuple[int, Callable[[Floats], Bytes]]] = {
    "Q2_K": (256, _q2_k),
    "Q3_K": (256, _q3_k),
    "Q4_K": (256, _q4_k),
    "Q5_K": (256, _q5_k),
    "Q6_K": (256, _q6_k),
    "IQ4_NL": (32, _iq4_nl),
    "IQ4_XS": (256, _iq4_xs),
}
"""Type -> columns of a block, and what writes [n, columns] as [n, bytes]."""
