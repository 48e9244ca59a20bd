"""Reads the header of a GGUF file without trusting it.

Owns the format, versions 2 and 3: magic, counts, metadata of typed values, tensors with dimensions, type and offset,
then their blocks, aligned. Every count and length is held against the bytes that are left before anything is
allocated, so that a file never costs more than its own size. Imports no torch; `tensors` reads the blocks.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgi.errors import ModelError
from tgi.untrusted import check_file, printable

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_DIMS = 4
LONGEST_NAME = 1 << 16
DEFAULT_ALIGNMENT = 32
STRING, ARRAY, BOOL = 8, 9, 7
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", BOOL: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a metadata value -> its code in `struct`."""
TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
"""Number of a tensor type -> name, numbers in a block, bytes of a block."""
FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class Info:
    """One tensor: where its blocks are, counted from the start of the file."""

    type: str
    shape: tuple[int, ...]
    """As torch has it: the last dimension is that of a row."""
    offset: int
    row_bytes: int

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def bytes(self) -> int:
        return self.rows * self.row_bytes


class GgufFile:
    """An open file: its metadata and its tensors, checked. Raises ModelError for anything wrong in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        check_file(path)
        try:
            with path.open("rb") as file:
                self.size = os.fstat(file.fileno()).st_size
                if self.size < 24:
                    raise ModelError(f"{printable(path.name)} is not a GGUF file: it is shorter than its header")
                # Private and writable only so that torch accepts the buffer; nothing is ever written.
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError as error:
            raise ModelError(f"{printable(path)} cannot be read: {error.strerror or error}") from error
        cursor = _Cursor(self.map, self.size, printable(path.name))
        self.metadata, self.tensors = _read_header(cursor)


class _Cursor:
    """A place in the file that never leaves it."""

    def __init__(self, data: mmap.mmap, size: int, name: str) -> None:
        self.data, self.size, self.name, self.at = data, size, name, 0

    def take(self, count: int) -> bytes:
        if count > self.size - self.at:
            raise ModelError(f"{self.name} is truncated or damaged: its header needs more bytes than the file has")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def name_text(self) -> str:
        length = self.number("Q")
        if length > LONGEST_NAME:
            raise ModelError(f"{self.name} is damaged: a name of {length} bytes")
        return self.take(length).decode("utf-8", "replace")

    def count(self, least: int, what: str) -> int:
        """A count of things that take at least `least` bytes each."""
        count = self.number("Q")
        if count * least > self.size - self.at:
            raise ModelError(f"{self.name} is truncated or damaged: it claims {count} {what}")
        return count


def _read_header(cursor: _Cursor) -> tuple[dict[str, Any], dict[str, Info]]:
    if cursor.take(4) != MAGIC:
        raise ModelError(f"{cursor.name} is not a GGUF file: it does not begin with {MAGIC.decode()}")
    version = cursor.number("I")
    if version not in VERSIONS:
        swapped = version & 0xFFFF == 0 and version != 0
        why = "it is written for big-endian machines" if swapped else f"it has version {version}, and 2 and 3 are read"
        raise ModelError(f"{cursor.name} cannot be read: {why}. Convert the model again with today's llama.cpp")
    tensor_count, metadata_count = cursor.count(24, "tensors"), cursor.count(12, "values of metadata")
    metadata: dict[str, Any] = {}
    for _ in range(metadata_count):
        key = cursor.name_text()
        if key in metadata:
            raise ModelError(f"{cursor.name} is damaged: {printable(key)} stands in its metadata twice")
        metadata[key] = _value(cursor, cursor.number("I"), key)
    described = [_describe(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise ModelError(f"{cursor.name} is damaged: general.alignment is {printable(alignment, 40)}")
    return metadata, _place(cursor, described, -(-cursor.at // alignment) * alignment, alignment)


def _value(cursor: _Cursor, kind: int, key: str) -> Any:
    if kind == STRING:
        return cursor.text()
    if kind in NUMBERS:
        return cursor.number(NUMBERS[kind])
    if kind != ARRAY:
        raise ModelError(f"{cursor.name} is damaged: {printable(key)} has type {kind}, which no value has")
    kind = cursor.number("I")
    if kind == STRING:
        return [cursor.text() for _ in range(cursor.count(8, f"strings in {printable(key)}"))]
    if kind not in NUMBERS:  # of arrays there are none: they could be nested without end
        raise ModelError(f"{cursor.name} is damaged: {printable(key)} is an array of type {kind}, which none is")
    size = struct.calcsize(f"<{NUMBERS[kind]}")
    count = cursor.count(size, f"numbers in {printable(key)}")
    return list(struct.unpack(f"<{count}{NUMBERS[kind]}", cursor.take(count * size)))


def _describe(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """(name, shape, type, offset) as the file has them."""
    name, dims = cursor.name_text(), cursor.number("I")
    if not 0 < dims <= MAX_DIMS:
        raise ModelError(f"{cursor.name} is damaged: tensor {printable(name)} has {dims} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dims))[::-1]
    return name, shape, cursor.number("I"), cursor.number("Q")


def _place(
    cursor: _Cursor, described: list[tuple[str, tuple[int, ...], int, int]], start: int, alignment: int
) -> dict[str, Info]:
    tensors: dict[str, Info] = {}
    spans = []
    for name, shape, number, offset in described:
        where = f"tensor {printable(name)}"
        if name in tensors:
            raise ModelError(f"{cursor.name} is damaged: {where} stands in it twice")
        if number not in TYPES:
            raise ModelError(f"{cursor.name}: {where} has type {number}, which is not supported: choose another file")
        kind, block, size = TYPES[number]
        if not all(0 < length < 1 << 40 for length in shape) or shape[-1] % block:
            raise ModelError(f"{cursor.name} is damaged: {where} of type {kind} has shape {list(shape)}")
        info = Info(kind, shape, start + offset, shape[-1] // block * size)
        if offset % alignment or info.offset + info.bytes > cursor.size:
            raise ModelError(f"{cursor.name} is truncated or damaged: {where} ends beyond the file, or is not aligned")
        tensors[name] = info
        spans.append((info.offset, info.offset + info.bytes, name))
    spans.sort()
    for (_, end, first), (begin, _, second) in itertools.pairwise(spans):
        if begin < end:
            raise ModelError(f"{cursor.name} is damaged: tensors {printable(first)} and {printable(second)} overlap")
    return tensors
