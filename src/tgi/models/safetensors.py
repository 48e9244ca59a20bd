"""Reads safetensors files without trusting them, and copies tensors out piece by piece.

Owns the format: an 8-byte little-endian header length, a JSON header of names to dtype, shape and byte
range, then the bytes. Everything in the header is checked before a byte is used, since files come from
strangers. The file is memory-mapped; copied pages are given back at once, so that a file never adds more
than `PIECE_BYTES` to the resident memory of the process.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch

from tgi.errors import ModelError
from tgi.untrusted import check_file, printable

PIECE_BYTES = 8 << 20
"""Copied between two calls that give pages back."""
MAX_HEADER_BYTES = 100 << 20  # the limit of the safetensors library
MAX_DIMS = 8

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.uint8,  # exponents, as formats read them
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file: where its bytes are, counted from the start of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class SafetensorsFile:
    """An open file and its checked header. Raises ModelError for anything wrong in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        check_file(path)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                self.entries = _read_header(printable(path.name), file.read(8), file, size)
                # Private and writable only so that torch accepts the buffer; nothing is ever written.
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError as error:
            raise ModelError(f"{printable(path)} cannot be read: {error.strerror or error}") from error

    def copy(self, name: str, into: torch.Tensor, index: tuple[slice, ...] = ()) -> None:
        """Copy a tensor, or the part `index` of it, into `into` of the same shape, casting."""
        entry = self.entries[name]
        if entry.bytes == 0:
            return
        source = torch.frombuffer(self._map, dtype=entry.dtype, count=math.prod(entry.shape), offset=entry.offset).view(
            entry.shape
        )
        if entry.shape == ():
            into.copy_(source)
            return
        rows = range(entry.shape[0])[index[0] if index else slice(None)]
        rest = index[1:]
        row_bytes = entry.bytes // entry.shape[0]
        step = max(1, PIECE_BYTES // row_bytes)
        for begin in range(0, len(rows), step):
            part = rows[begin : begin + step]
            into[begin : begin + step].copy_(source[part.start : part.stop][(slice(None), *rest)])
            self._give_back(entry.offset + part.start * row_bytes, len(part) * row_bytes)

    def close(self) -> None:
        """Unmap. Further copies are a mistake."""
        # An error on its way up may hold a view in its traceback; the map then goes when it does.
        with contextlib.suppress(BufferError):
            self._map.close()

    def _give_back(self, offset: int, length: int) -> None:
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, start, offset + length - start)


def _read_header(name: str, prefix: bytes, file: Any, size: int) -> dict[str, Entry]:
    if len(prefix) < 8:
        raise ModelError(f"{name} is not a safetensors file: it is shorter than its header")
    length = int.from_bytes(prefix, "little")
    if length > min(size - 8, MAX_HEADER_BYTES):
        raise ModelError(f"{name} is truncated or not a safetensors file: its header claims {length} bytes of {size}")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise ModelError(f"{name} is not a safetensors file: its header is not JSON") from None
    if not isinstance(header, dict):
        raise ModelError(f"{name} is not a safetensors file: its header is not an object")
    header.pop("__metadata__", None)
    data = size - 8 - length
    spans = []
    entries = {}
    for tensor, fields in header.items():
        begin, end, entry = _read_entry(name, tensor, fields, 8 + length)
        if end > data:
            raise ModelError(f"{name} is truncated: tensor {printable(tensor)} ends at byte {end} of {data}")
        entries[tensor] = entry
        spans.append((begin, end, tensor))
    spans.sort()
    for (_, end, first), (begin, _, second) in itertools.pairwise(spans):
        if begin < end:
            raise ModelError(f"{name} is corrupt: tensors {printable(first)} and {printable(second)} overlap")
    return entries


def _read_entry(name: str, tensor: str, fields: Any, start: int) -> tuple[int, int, Entry]:
    """(first byte, byte after the last, entry), checked but for the file's end and its neighbours."""
    tensor = printable(tensor)
    where = f"{name} is corrupt: tensor {tensor}"
    if not isinstance(fields, dict):
        raise ModelError(f"{where} is not described by an object")
    shape, offsets = fields.get("shape"), fields.get("data_offsets")
    if not _counts(shape) or len(shape) > MAX_DIMS:
        raise ModelError(f"{where} has shape {printable(shape, 80)}")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ModelError(f"{where} has data offsets {printable(offsets, 80)}")
    dtype = DTYPES.get(str(fields.get("dtype")))
    if dtype is None:
        raise ModelError(
            f"{name}: tensor {tensor} has dtype {printable(fields.get('dtype'), 80)}, which is not supported"
        )
    begin, end = offsets
    entry = Entry(dtype, tuple(shape), start + begin)
    if entry.bytes != end - begin:
        raise ModelError(f"{where} of shape {shape} and dtype {fields['dtype']} cannot take {end - begin} bytes")
    return begin, end, entry


def _counts(value: Any) -> TypeGuard[list[int]]:
    """A list of integers that can count something."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 48 for item in value)
