"""Copies tensors out of safetensors files, piece by piece.

The header is checked by `safetensors_header`. The file is memory-mapped; copied pages are given back at once, so that
a file never adds more than `PIECE_BYTES` to the resident memory of the process.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from dataclasses import dataclass
from pathlib import Path

import torch

from tgi.errors import ModelError
from tgi.models.safetensors_header import read_header
from tgi.untrusted import check_file, printable

PIECE_BYTES = 8 << 20
"""Copied between two calls that give pages back."""

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
                stored = read_header(printable(path.name), file)
                self.entries = {name: Entry(DTYPES[t.dtype], t.shape, t.offset) for name, t in stored.items()}
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
