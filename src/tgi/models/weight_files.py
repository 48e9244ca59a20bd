"""Which files of a checkpoint hold its weights: the one rule, for the loader, the hub and the conversion alike.

Names in, names out; the list may be that of a directory or of a repository on the hub. Imports no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from tgi.errors import ModelError
from tgi.untrusted import printable, read_json

FORMATS = (".safetensors", ".bin", ".pt")
"""In order of preference; all but the first are converted."""
SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
"""The usual name of a checkpoint in one file; shards have its index beside them."""
INDEX_SUFFIX = ".index.json"
MOST_NAMES = 100 << 20
"""Bytes of names that are looked at."""
_NO_WEIGHTS = ("arguments", "args", "training", "optimizer", "scheduler", "rng_state")
"""In names of files that trainers leave beside the weights."""


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files to read, and what lies beside them."""

    names: tuple[str, ...] = ()
    index: str | None = None
    """The index that names them; None where there is none, or it is not followed."""
    leftovers: tuple[str, ...] = ()
    """Files by the usual names of the same format that are not read, such as shards of an older version."""

    def warning(self, directory: Path) -> str | None:
        """The sentence about leftovers, None without them."""
        if not self.leftovers:
            return None
        used = self.index or ", ".join(self.names)
        return (
            f"{printable(directory)} holds two versions of its weights: {used} is used, and "
            f"{some(self.leftovers)} is not. Remove what you do not mean"
        )


def choose(names: Collection[str], index_files: Callable[[str], Collection[str]]) -> WeightFiles:
    """The weight files among `names`, in one format.

    As in transformers: model.safetensors, else the shards that model.safetensors.index.json names, else the same of
    pytorch_model.bin. Where there is none of these, every file of the first format that is there.
    index_files: the files that an index of this name names; asked only where needed. Raises ModelError, also where
    named files are missing. Leftovers are `in_directory`'s.
    """
    for single in SINGLE_FILES:
        index = single + INDEX_SUFFIX
        if single in names:
            chosen = WeightFiles((single,))
        elif index in names:
            chosen = WeightFiles(tuple(sorted(set(index_files(index)))), index)
        else:
            continue
        if missing := sorted(set(chosen.names) - set(names)):
            raise ModelError(
                f"{len(missing)} of {len(chosen.names)} weight files are missing, such as {printable(missing[0])} of "
                f"{index}: the model is incomplete, fetch it again"
            )
        return chosen
    for suffix in FORMATS:
        found = sorted(name for name in names if name.endswith(suffix) and "/" not in name and not _beside(name))
        if found:
            return WeightFiles(tuple(found))
    return WeightFiles()


def in_directory(directory: Path) -> WeightFiles:
    """`choose` for a directory on this disk, with what is left over there."""
    names = [path.name for path in directory.iterdir() if not path.is_dir()]

    def index_files(index: str) -> set[str]:
        return set(read_index(directory / index).values())

    chosen = choose(names, index_files)
    return replace(chosen, leftovers=_leftovers(chosen, names, index_files))


def read_index(path: Path) -> dict[str, str]:
    """Tensor -> file, as an index of shards says. Raises ModelError, also for files outside its directory."""
    content = read_json(path)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{printable(path)} is not an index of weight files: it has no weight_map")
    for name, file in weight_map.items():
        # A name that leaves the directory would read whatever the process can.
        if not isinstance(file, str) or file in ("", ".", "..") or "/" in file or "\\" in file:
            raise ModelError(
                f"{printable(path)}: {printable(name)} is in {printable(repr(file))}, "
                "which is not a file of this directory"
            )
    return weight_map


def tensor_shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in the first safetensors file of a directory; none if there is no such file.

    Only for a look at what a checkpoint may be: whoever reads the file checks all of it.
    """
    first = min((path.name for path in directory.iterdir() if path.name.endswith(FORMATS[0])), default=None)
    if first is None or not (directory / first).is_file():
        return {}
    try:
        with (directory / first).open("rb") as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), MOST_NAMES)))
    except (OSError, ValueError, RecursionError):
        return {}
    entries = header.items() if isinstance(header, dict) else ()
    shapes = {name: entry.get("shape") for name, entry in entries if isinstance(entry, dict)}
    return {name: tuple(shape) for name, shape in shapes.items() if isinstance(shape, list)}


def some(names: Collection[str], count: int = 3) -> str:
    """The first of them, for a sentence."""
    first = ", ".join(printable(name) for name in sorted(names)[:count])
    return first + (f" and {len(names) - count} more" if len(names) > count else "")


def _leftovers(
    chosen: WeightFiles, names: Collection[str], index_files: Callable[[str], Collection[str]]
) -> tuple[str, ...]:
    single = chosen.index.removesuffix(INDEX_SUFFIX) if chosen.index else "".join(chosen.names)
    if single not in SINGLE_FILES:
        return ()
    stem, _, suffix = single.rpartition(".")
    shard = re.compile(rf"{re.escape(stem)}-\d+-of-\d+\.{suffix}")
    left = {name for name in names if shard.fullmatch(name)} - set(chosen.names)
    index = single + INDEX_SUFFIX
    if chosen.index is None and index in names and _other_files(index, chosen, index_files):
        left.add(index)
    return tuple(sorted(left))


def _other_files(index: str, chosen: WeightFiles, index_files: Callable[[str], Collection[str]]) -> bool:
    """Whether an index that is not followed names other files than the chosen ones, or cannot be read."""
    try:
        return set(index_files(index)) != set(chosen.names)
    except ModelError:
        return True


def _beside(name: str) -> bool:
    return any(word in name for word in _NO_WEIGHTS)
