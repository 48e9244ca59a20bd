"""`GgufTensors`: the tensors of a model's GGUF files by the names of its own checkpoint.

Owns what llama.cpp changes when it converts: names, rows of queries and keys in another order, stacked experts, norms
plus one. Gives floats like a safetensors file, and rows of blocks as they are (`rows`), which `quant.formats.gguf`
makes codes of.
"""

from __future__ import annotations

import contextlib
import mmap
from dataclasses import dataclass
from pathlib import Path

import torch

from tgi.errors import ModelError
from tgi.models.gguf.file import FLOATS, GgufFile, Info
from tgi.models.gguf.names import IGNORED, renamed
from tgi.models.names import Names
from tgi.quant.formats.ggml import decode
from tgi.untrusted import printable

TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TURNED = ("arcee", "granite", "llama", "olmo", "smollm3")
"""Architectures whose rows of queries and keys stand in the order of neighbouring pairs."""
PLUS_ONE = ("gemma", "gemma2", "gemma3")
"""Architectures whose norms are stored plus one."""
PIECE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of the model: rows first ... of a stored one; see `safetensors.Entry`."""

    info: Info
    shape: tuple[int, ...]
    first: int = 0
    heads: int = 0
    """Of queries or keys whose rows stand in another order; 0: they do not."""
    subtract: float = 0.0

    @property
    def dtype(self) -> torch.dtype:
        """uint8 of what is in codes."""
        return TORCH.get(self.info.type, torch.uint8)

    @property
    def count(self) -> int:
        """Rows."""
        return self.shape[0] if len(self.shape) > 1 else 1

    @property
    def bytes(self) -> int:
        return self.count * self.info.row_bytes


class GgufTensors:
    """One file, or one part of several, with the interface of `SafetensorsFile`."""

    def __init__(self, path: Path, names: Names, architecture: str, heads: tuple[int, int], layers: int) -> None:
        """heads: of queries and of keys. Raises ModelError."""
        self.path = path
        self._file = GgufFile(path)
        known = dict(renamed(names, layers))
        self.entries: dict[str, Entry] = {}
        for stored, info in self._file.tensors.items():
            if stored in IGNORED:
                continue
            stem, _, end = stored.rpartition(".")
            if stem not in known:
                raise ModelError(
                    f"{printable(path.name)} holds {printable(stored)}, which the model has no use for: it belongs to "
                    "another kind of model than its metadata say"
                )
            subtract = 1.0 if architecture in PLUS_ONE and "norm" in stem else 0.0
            turned = architecture in TURNED and stem.endswith((".attn_q", ".attn_k"))
            if len(info.shape) == 3:
                self._add_stacked(known[stem], end, info)
                continue
            shape = (1, *info.shape) if stem.endswith("ffn_gate_inp_shexp") and len(info.shape) == 1 else info.shape
            count = heads[stem.endswith("_k")] if turned else 0
            if count and shape[0] % (2 * count):
                raise ModelError(f"{printable(path.name)}: {printable(stored)} has {shape[0]} rows for {count} heads")
            self.entries[f"{known[stem]}.{end}"] = Entry(info, shape, 0, count, subtract)

    def _add_stacked(self, name: str, end: str, info: Info) -> None:
        experts, rows, columns = info.shape
        for expert in range(experts):
            self.entries[f"{name.format(expert=expert)}.{end}"] = Entry(info, (rows, columns), expert * rows)

    def rows(self, name: str, rows: slice) -> tuple[str, torch.Tensor]:
        """The type of a matrix, and rows of it as blocks, [rows, bytes] uint8."""
        entry = self.entries[name]
        info = entry.info
        blocks = self._bytes(info).view(info.rows, info.row_bytes)
        if entry.heads:
            return info.type, blocks[_turned(entry, rows)]
        found = blocks[entry.first + rows.start : entry.first + rows.stop].clone()
        self._give_back(info, entry.first + rows.start, len(found))
        return info.type, found

    def copy(self, name: str, into: torch.Tensor, index: tuple[slice, ...] = ()) -> None:
        """Copy a tensor, or the part `index` of it, into `into` of the same shape, dequantised and cast."""
        entry = self.entries[name]
        if len(entry.shape) == 1:
            into.copy_(self._vector(entry)[index or (slice(None),)])
            return
        rows, rest = range(entry.shape[0])[index[0] if index else slice(None)], index[1:]
        step = max(1, PIECE_BYTES // (4 * entry.shape[1]))
        for begin in range(0, len(rows), step):
            part = rows[begin : begin + step]
            kind, blocks = self.rows(name, slice(part.start, part.stop))
            into[begin : begin + step].copy_(floats(kind, blocks)[(slice(None), *rest)])

    def close(self) -> None:
        """Unmap. Further copies are a mistake."""
        with contextlib.suppress(BufferError):
            self._file.map.close()

    def _vector(self, entry: Entry) -> torch.Tensor:
        values = floats(entry.info.type, self._bytes(entry.info).view(1, -1))[0]
        if entry.heads:
            values = values[_turned(entry, slice(0, entry.shape[0]))]
        return values.float() - entry.subtract if entry.subtract else values

    def _bytes(self, info: Info) -> torch.Tensor:
        return torch.frombuffer(self._file.map, dtype=torch.uint8, count=info.bytes, offset=info.offset)

    def _give_back(self, info: Info, first: int, count: int) -> None:
        begin = info.offset + first * info.row_bytes
        start = begin // mmap.PAGESIZE * mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and count:
            self._file.map.madvise(mmap.MADV_DONTNEED, start, begin + count * info.row_bytes - start)


def floats(kind: str, blocks: torch.Tensor) -> torch.Tensor:
    """blocks [rows, bytes] uint8 -> their numbers [rows, columns]"""
    if kind in FLOATS:
        return blocks.contiguous().view(TORCH[kind])
    found = decode(kind, blocks)
    return found if isinstance(found, torch.Tensor) else found.dequantise()


def _turned(entry: Entry, rows: slice) -> torch.Tensor:
    return entry.first + turned_rows(entry.shape[0], entry.heads)[rows]


def turned_rows(rows: int, heads: int) -> torch.Tensor:
    """Where rows of queries or keys stand: halves of a head beside each other, pair by pair."""
    row = torch.arange(rows)
    dim = rows // heads
    half, within = dim // 2, row % dim
    return row - within + 2 * (within % half) + within // half
