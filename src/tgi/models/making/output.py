"""The directory that is made: matrices as they come, then the whole checkpoint, config.json last.

Each matrix goes into a small file of its own below `UNFINISHED`, so that an interrupted job goes on where it was. At
the end these and what the original has besides are copied into shards; the bytes of a tensor are never all in memory.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import torch

from tgi.errors import ModelError
from tgi.models.config_reader import read_config
from tgi.models.making.job import Job
from tgi.models.safetensors import DTYPES
from tgi.models.safetensors_header import ITEM_BYTES, StoredTensor, read_tensors
from tgi.models.weight_files import in_directory
from tgi.untrusted import printable

UNFINISHED = "unfinished-quantization"
SHARD_BYTES = 4 << 30
COPY_BYTES = 8 << 20
NAMES = {dtype: name for name, dtype in DTYPES.items() if name != "F8_E8M0"}
"""torch's dtypes -> the format's names."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file of its own or of the original."""

    file: Path
    tensor: StoredTensor


class Output:
    """A checkpoint in the making. Raises ModelError for a directory that holds something else."""

    def __init__(self, job: Job) -> None:
        self.source, self.target, self._job = Path(job.source), Path(job.target), job
        self._folder = self.target / UNFINISHED
        if self.target.exists() and not self._folder.is_dir() and any(self.target.iterdir()):
            raise ModelError(f"{printable(job.target)} is not empty: give a directory that is, or does not exist")
        self._folder.mkdir(parents=True, exist_ok=True)
        note, key = self._folder / "job.json", fingerprint(job)
        if note.is_file() and note.read_text() != key:
            raise ModelError(
                f"{printable(job.target)} holds an unfinished quantisation of another model or with other settings: "
                "remove it, or give another directory"
            )
        note.write_text(key)
        for left in self._folder.glob("*.part"):
            left.unlink()

    def has(self, key: str) -> bool:
        """Whether the tensors of this part are there, from before an interruption."""
        return self._path(key).is_file()

    def write(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep the tensors of one part, by their names in the checkpoint."""
        path = self._path(key)
        part = path.with_suffix(".part")
        write_tensors(part, tensors)
        part.replace(path)

    def read(self, key: str) -> dict[str, torch.Tensor]:
        """The tensors of a part that is there."""
        path = self._path(key)
        found = {}
        with path.open("rb") as file:
            for name, stored in read_tensors(path).items():
                file.seek(stored.offset)
                data = bytearray(file.read(stored.bytes))
                flat = torch.frombuffer(data, dtype=DTYPES[stored.dtype]) if data else torch.empty(0)
                found[name] = flat.view(stored.shape)
        return found

    def finish(
        self,
        replaced: set[str],
        changes: Mapping[str, Any],
        overrides: Mapping[str, torch.Tensor] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> int:
        """Put the checkpoint together: the bytes of its weight files.

        replaced: tensors of the original that are not copied. Parts' tensors with a # in their names are not, either.
        changes: of config.json. overrides: tensors in place of others. more: further JSON files by name.
        """
        everything = self._original(replaced)
        last = self._folder / "overrides.safetensors"
        write_tensors(last, overrides or {})
        for path in [*sorted(path for path in self._folder.glob("*.safetensors") if path != last), last]:
            everything |= {name: Stored(path, tensor) for name, tensor in read_tensors(path).items() if "#" not in name}
        total = self._write_shards(everything)
        for name in self._job.keep:
            (self.target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(self.source / name, self.target / name)
        for name, content in {**(more or {}), "config.json": {**read_config(self.source), **changes}}.items():
            part = self._folder / f"{name}.part"
            part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            part.replace(self.target / name)
        shutil.rmtree(self._folder)
        return total

    def _path(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"

    def _original(self, replaced: set[str]) -> dict[str, Stored]:
        files = [self.source / name for name in in_directory(self.source).names]
        return {
            name: Stored(file, tensor)
            for file in files
            for name, tensor in read_tensors(file).items()
            if name not in replaced
        }

    def _write_shards(self, everything: Mapping[str, Stored]) -> int:
        shards = list(_shards(everything))
        weight_map: dict[str, str] = {}
        for number, names in enumerate(shards, 1):
            file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
            part = self._folder / f"{file}.part"
            names.sort(key=lambda name: (-ITEM_BYTES[everything[name].tensor.dtype], name))  # so that each is aligned
            with part.open("wb") as out:
                _write_header(out, {name: everything[name].tensor for name in names})
                for name in names:
                    _copy(everything[name], out)
            part.replace(self.target / file)
            weight_map |= dict.fromkeys(names, file)
        total = sum(stored.tensor.bytes for stored in everything.values())
        if len(shards) > 1:
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            (self.target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
        return total


def fingerprint(job: Job) -> str:
    """Of the original's files and of the settings that change the result."""
    source = Path(job.source)
    facts = [
        [name, (source / name).stat().st_size, (source / name).stat().st_mtime_ns]
        for name in in_directory(source).names
    ]
    settings = msgspec.to_builtins(msgspec.structs.replace(job, target="", threads=1, log_level="", json_output=False))
    text = Path(job.calibration).read_bytes() if job.calibration and Path(job.calibration).is_file() else b""
    return json.dumps([settings, facts, hashlib.sha256(text).hexdigest()])


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """A safetensors file."""
    offset, entries = 0, {}
    for name, tensor in tensors.items():
        entries[name] = StoredTensor(NAMES[tensor.dtype], tuple(tensor.shape), offset)
        offset += tensor.nbytes
    with path.open("wb") as file:
        _write_header(file, entries)
        for tensor in tensors.values():
            if tensor.numel():
                file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)


def _shards(everything: Mapping[str, Stored]) -> Iterator[list[str]]:
    """Names by files of at most `SHARD_BYTES`, or of one tensor."""
    names: list[str] = []
    size = 0
    for name in sorted(everything):
        bytes = everything[name].tensor.bytes
        if names and size + bytes > SHARD_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += bytes
    if names:
        yield names


def _write_header(file: BinaryIO, entries: Mapping[str, StoredTensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in entries.items():
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.bytes],
        }
        offset += tensor.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    file.write(len(text).to_bytes(8, "little") + text)


def _copy(stored: Stored, out: BinaryIO) -> None:
    left = stored.tensor.bytes
    with stored.file.open("rb") as file:
        file.seek(stored.tensor.offset)
        while left:
            data = file.read(min(left, COPY_BYTES))
            if not data:
                raise ModelError(f"{printable(stored.file)} is cut short")
            out.write(data)
            left -= len(data)
