"""The tensors of a checkpoint directory by name, and which of them the model took.

Owns tied and prefixed names, shape checks, and the verdict that nothing was left over. Which files they are in is
`weight_files'`, the format itself `safetensors'`. A `kernels.weight.WeightSource`, which the stored formats read.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tgi.errors import ModelError
from tgi.models.gguf.tensors import Entry as GgufEntry
from tgi.models.gguf.tensors import GgufTensors
from tgi.models.names import Names
from tgi.models.safetensors import PIECE_BYTES, Entry, SafetensorsFile
from tgi.models.text_part import full_name
from tgi.models.weight_files import FORMATS, WeightFiles, in_directory, read_index, some
from tgi.untrusted import printable

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""(bytes of the checkpoint read so far, bytes in total); called after every tensor."""


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a checkpoint directory; see `models.weight_files` for the rule. Raises ModelError."""
    return [path / name for name in _chosen(path).names]


def _chosen(path: Path) -> WeightFiles:
    chosen = in_directory(path)
    if not all(name.endswith(FORMATS[0]) for name in chosen.names) or not chosen.names:
        raise ModelError(f"{printable(path)} has no *.safetensors files")
    return chosen


class Weights:
    """A `WeightSource` over a checkpoint directory. Use as a context manager; leaving unmaps the files."""

    def __init__(
        self, path: Path, names: Names, progress: Progress | None = None, parts: Sequence[GgufTensors] = ()
    ) -> None:
        """parts: the files where they are GGUF."""
        self.path = path
        chosen = WeightFiles() if parts else _chosen(path)
        if warning := chosen.warning(path):
            logger.warning(warning)
        self._files: list[SafetensorsFile | GgufTensors] = list(parts)
        self._files += [SafetensorsFile(path / name) for name in chosen.names]
        self._where: dict[str, tuple[SafetensorsFile | GgufTensors, str]] = {}
        for file in self._files:
            for stored in file.entries:
                name = full_name(stored, names)
                if name in self._where:
                    first, second = (printable(f.path.name) for f in (self._where[name][0], file))
                    raise ModelError(f"Tensor {printable(stored)} is stored twice: in {first} and {second}")
                self._where[name] = (file, stored)
        if chosen.index:
            self._check_index(path / chosen.index)
        self._ignored = [re.compile(pattern) for pattern in names.ignored]
        self._taken: set[str] = set()
        self._provided: dict[str, torch.Tensor] = {}
        self._progress = progress
        self._read_bytes = 0
        self._total_bytes = sum(entry.bytes for file in self._files for entry in file.entries.values())

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def provide(self, name: str, tensor: torch.Tensor) -> None:
        """Take `tensor` for one that the checkpoint has not."""
        self._provided[name] = tensor

    def stored_name(self, name: str) -> str | None:
        """What tensor `name` is called in its file; None where it is in none."""
        return self._where[name][1] if name in self._where else None

    def has(self, name: str) -> bool:
        return name in self._where or name in self._provided

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self._provided:
            return tuple(self._provided[name].shape)
        return self._entry(name).shape

    def dtype(self, name: str) -> torch.dtype:
        return self._provided[name].dtype if name in self._provided else self._entry(name).dtype

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all tensors of the checkpoint."""
        return {name: file.entries[stored].shape for name, (file, stored) in self._where.items()}

    def read(self, name: str, into: torch.Tensor, index: tuple[slice, ...] = ()) -> None:
        """See `WeightSource.read`."""
        if name in self._provided:
            into.copy_(self._provided[name][index])
            return
        entry = self._entry(name)
        shape = entry.shape
        if index:
            sizes = [len(range(size)[part]) for size, part in zip(shape, index, strict=False)]
            shape = (*sizes, *shape[len(index) :])
        if len(index) > len(entry.shape) or shape != tuple(into.shape):
            raise ModelError(f"Tensor {name} has shape {list(entry.shape)}, the model needs {list(into.shape)}")
        if into.is_floating_point() and not entry.dtype.is_floating_point:
            kind = str(entry.dtype).removeprefix("torch.")
            raise ModelError(f"Tensor {name} is stored as {kind}, the model needs floating-point numbers")
        file, stored = self._where[name]
        file.copy(stored, into, index)
        self._note(name, into.numel() * entry.dtype.itemsize)

    def rows(self, name: str, rows: slice) -> tuple[str, torch.Tensor]:
        """See `quant.formats.gguf.Blocks`."""
        self._entry(name)
        file, stored = self._where[name]
        assert isinstance(file, GgufTensors), "only GGUF files have blocks"
        kind, blocks = file.rows(stored, rows)
        self._note(name, blocks.nbytes)
        return kind, blocks

    def _note(self, name: str, count: int) -> None:
        """Bytes of a tensor have been read."""
        self._taken.add(name)
        self._read_bytes += count
        if self._progress:
            self._progress(min(self._read_bytes, self._total_bytes), self._total_bytes)

    def tied(self, embedding: str, head: str, dtype: torch.dtype) -> bool:
        """Whether the embedding and the head, modules that the config ties, are one weight in the checkpoint as well.

        As in transformers: where only one of them is stored it serves as both, and a stored head whose numbers are
        others in `dtype` is the head, whatever the config says; that is warned about.
        """
        table, other = f"{embedding}.weight", f"{head}.weight"
        if not self.has(other):
            coded = f"{head}."  # a head in codes has tensors of other names
            return not any(name.startswith(coded) and name != f"{head}.bias" for name in self._where)
        if not self.has(table):
            self._where[table] = self._where.pop(other)
            return True
        if self._equal(table, other, dtype):
            return True
        logger.warning(
            "config.json says that the head is the embedding (`tie_word_embeddings`), but the checkpoint holds %s with "
            "other numbers: that is used. Set `tie_word_embeddings` to false to silence this",
            other,
        )
        return False

    def _equal(self, first: str, second: str, dtype: torch.dtype) -> bool:
        """Whether two tensors hold the same numbers once they are cast to `dtype`; compared piece by piece."""
        shape = self.shape(first)
        if self.shape(second) != shape:
            return False
        step = max(1, PIECE_BYTES // (math.prod(shape[1:]) * dtype.itemsize or 1))
        for begin in range(0, shape[0] if shape else 0, step):
            part = (slice(begin, min(begin + step, shape[0])),)
            pieces = [torch.empty((part[0].stop - begin, *shape[1:]), dtype=dtype) for _ in range(2)]
            for piece, name in zip(pieces, (first, second), strict=True):
                file, stored = self._where[name]
                file.copy(stored, piece, part)
            if not torch.equal(*pieces):
                return False
        return True

    def finish(self, *, tied_head: str | None, ignored: tuple[str, ...] = ()) -> None:
        """Every tensor must have been read, but for those known to carry nothing. Raises ModelError.

        tied_head: name of the head whose weight repeats the embedding; None if the model has its own. ignored: regular
        expressions of tensors that the stored format has and that nothing needs.
        """
        patterns = [*self._ignored, *map(re.compile, ignored)]
        left = {name for name in set(self._where) - self._taken if not any(p.fullmatch(name) for p in patterns)}
        if tied_head is not None:
            left = {name for name in left if not name.startswith(f"{tied_head}.")}
        if left:
            raise ModelError(f"The checkpoint has tensors that the model does not use: {some(left, 5)}")
        if self._progress:
            self._progress(self._total_bytes, self._total_bytes)

    def common_dtype(self) -> torch.dtype:
        """The floating-point type most bytes are stored in, for a config that does not name one."""
        counts: Counter[torch.dtype] = Counter()
        for file in self._files:
            for entry in file.entries.values():
                if entry.dtype.is_floating_point and entry.dtype.itemsize in (2, 4):
                    counts[entry.dtype] += entry.bytes
        return counts.most_common(1)[0][0] if counts else torch.float32

    def _entry(self, name: str) -> Entry | GgufEntry:
        if name not in self._where:
            raise ModelError(f"Tensor {name} is missing from the checkpoint {self.path}")
        file, stored = self._where[name]
        return file.entries[stored]

    def _check_index(self, index: Path) -> None:
        for stored, file in read_index(index).items():
            found = next((f for f in self._files if f.path.name == file and stored in f.entries), None)
            if found is None:
                raise ModelError(
                    f"{index.name} says that tensor {printable(stored)} is in {printable(file)}, but it is not there"
                )
