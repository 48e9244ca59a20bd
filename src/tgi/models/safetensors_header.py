"""What a safetensors file says it holds, checked before a byte of it is used, since files come from strangers.

The format: an 8-byte little-endian header length, a JSON header of names to dtype, shape and byte range, then the
bytes. Imports no torch.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from tgi.errors import ModelError
from tgi.untrusted import check_file, printable

MAX_HEADER_BYTES = 100 << 20  # the limit of the safetensors library
MAX_DIMS = 8
ITEM_BYTES = {
    name: count
    for count, names in ((8, "F64 I64"), (4, "F32 I32"), (2, "F16 BF16 I16"), (1, "I8 U8 BOOL F8_E4M3 F8_E5M2 F8_E8M0"))
    for name in names.split()
}
"""The format's names of dtypes -> bytes of a number."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file: where its bytes are, counted from the start of the file."""

    dtype: str
    """A name of `ITEM_BYTES`."""
    shape: tuple[int, ...]
    offset: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by name. Raises ModelError for anything wrong in its header, and for a file cut short."""
    check_file(path)
    try:
        with path.open("rb") as file:
            return read_header(printable(path.name), file)
    except OSError as error:
        raise ModelError(f"{printable(path)} cannot be read: {error.strerror or error}") from error


def read_header(name: str, file: BinaryIO) -> dict[str, StoredTensor]:
    """The same of an open file, `name` in messages. Raises ModelError and OSError."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
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


def _read_entry(name: str, tensor: str, fields: Any, start: int) -> tuple[int, int, StoredTensor]:
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
    dtype = str(fields.get("dtype"))
    if dtype not in ITEM_BYTES:
        raise ModelError(
            f"{name}: tensor {tensor} has dtype {printable(fields.get('dtype'), 80)}, which is not supported"
        )
    begin, end = offsets
    entry = StoredTensor(dtype, tuple(shape), start + begin)
    if entry.bytes != end - begin:
        raise ModelError(f"{where} of shape {shape} and dtype {fields['dtype']} cannot take {end - begin} bytes")
    return begin, end, entry


def _counts(value: Any) -> TypeGuard[list[int]]:
    """A list of integers that can count something."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 48 for item in value)
