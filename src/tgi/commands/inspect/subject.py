"""The checkpoint that `tgi inspect` looks at: a directory, a GGUF file, or a repository on the hub from a distance."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgi.errors import DownloadError
from tgi.hub import converted, files, gguf
from tgi.hub.download import Hub
from tgi.hub.prepare import DEMO_ID, demo_directory, local_gguf, refuse_path
from tgi.hub.remote import look
from tgi.hub.remote_gguf import stand_ins
from tgi.models import inventory
from tgi.models.gguf.file import GgufFile
from tgi.models.gguf.names import IGNORED, renamed
from tgi.models.safetensors_header import StoredTensor
from tgi.models.spec import ModelSpec
from tgi.models.text_part import full_name
from tgi.models.weight_files import WeightFiles
from tgi.settings.config import read_environment
from tgi.settings.flags import LauncherConfig


@dataclass(frozen=True)
class Held:
    """A tensor as it lies in its file."""

    type: str
    """Of its numbers, as the file's format calls it."""
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class Subject:
    """A checkpoint: its config in a directory, and what there is beside it."""

    model_id: str
    directory: Path
    names: tuple[str, ...]
    """Of all files."""
    weights: tuple[str, ...]
    """Files of the weights; empty where they could not be told."""
    index: str | None = None
    remote: bool = False
    tensors: Mapping[str, StoredTensor] | None = None
    """Of a remote one."""
    passing: bool = False
    """The directory is gone when the command ends."""

    @property
    def format(self) -> str:
        kinds = {name.rpartition(".")[2] for name in self.weights}
        return kinds.pop() if len(kinds) == 1 and kinds <= {"safetensors", "gguf"} else "pickle"


def locate(config: LauncherConfig, hub: Hub) -> Subject:
    """The checkpoint that the flags name. Raises `StartupError` where there is none."""
    name = config.model_id or DEMO_ID
    if local := local_gguf(name, config.gguf_file):
        caches = converted.caches_of(read_environment(), config.huggingface_hub_cache)
        directory = Path(gguf.make_model(local, name, caches).path)
        return Subject(name, directory, tuple(files.names(directory)), tuple(path.name for path in local))
    directory = files.directory(name) or (demo_directory() if name == DEMO_ID else None)
    if directory is None:
        refuse_path(name)
        folder = _temporary()
        if parts := stand_ins(name, config.revision, config.gguf_file, hub, folder):
            directory = Path(gguf.make_model(parts, name, [folder]).path)
            names = tuple(path.name for path in parts)
            return Subject(name, directory, tuple(files.names(directory)), names, passing=True)
        found = look(name, config.revision, hub)
        weights = found.weights
        return Subject(name, found.directory, found.names, weights.names, weights.index, True, found.tensors)
    if not files.is_file(directory / "config.json"):
        raise DownloadError(f"{name} has no config.json: it is not a model in transformers format")
    names = tuple(files.names(directory))
    try:
        weights = files.in_directory(directory)
    except DownloadError:  # `suitability` says so, after all else has been told
        weights = WeightFiles()
    return Subject(name, directory, names, weights.names, weights.index)


def _temporary() -> Path:
    """A directory that is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="tgi-inspect-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def held(subject: Subject) -> dict[str, Held] | None:
    """The tensors of the files under their stored names; None where only a conversion can tell. Raises ModelError."""
    if subject.format == "gguf":
        found: dict[str, Held] = {}
        for name in subject.weights:
            file = GgufFile(subject.directory / name)
            found |= {stored: Held(info.type, info.shape, info.bytes) for stored, info in file.tensors.items()}
            file.map.close()
        return found
    if subject.remote:
        tensors = subject.tensors
    elif subject.format == "safetensors":
        tensors = inventory.read_stored(subject.directory)
    else:
        return None
    return None if tensors is None else {name: Held(one.dtype, one.shape, one.bytes) for name, one in tensors.items()}


def by_model_names(tensors: Mapping[str, Held], subject: Subject, spec: ModelSpec) -> dict[str, StoredTensor]:
    """The tensors by the names that the family has for them; of these only shapes are told."""
    if subject.format != "gguf":
        return {full_name(name, spec.names): _shaped(one.shape) for name, one in tensors.items()}
    known: dict[str, Any] = dict(renamed(spec.names, len(spec.layers)))
    found = {}
    for stored, one in tensors.items():
        stem, _, end = stored.rpartition(".")
        if stored in IGNORED:
            continue
        name = f"{known.get(stem, stem)}.{end}"
        if "{expert}" in name:
            found |= {name.format(expert=expert): _shaped(one.shape[1:]) for expert in range(one.shape[0])}
        else:
            single = stem.endswith("ffn_gate_inp_shexp") and len(one.shape) == 1
            found[name] = _shaped((1, *one.shape) if single else one.shape)
    return found


def _shaped(shape: tuple[int, ...]) -> StoredTensor:
    return StoredTensor("U8", shape, 0)
