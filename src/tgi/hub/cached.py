"""What the hub's cache on this disk holds: models, their sizes and last use, and what was made of them here.

Reads the layout that huggingface_hub keeps (models--org--name with blobs, refs and snapshots), without that library and
without the network. Removes models with all that belongs to them.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tgi.errors import DownloadError
from tgi.hub import converted, gguf

PREFIX = "models--"
UNFINISHED = (".incomplete", ".unfinished")


@dataclass
class CachedModel:
    """A repository in the cache."""

    id: str
    directory: Path
    bytes: int = 0
    """Of all revisions, files that they share counted once; with what was converted."""
    unfinished_bytes: int = 0
    """Of transfers that were broken off."""
    used: float = 0.0
    """When a file was last read, in seconds since 1970, as far as the file system tells."""
    revisions: dict[str, Path] = field(default_factory=dict)
    """Branch or tag (a commit without one: itself) -> directory of its files."""
    made: list[Path] = field(default_factory=list)
    """Directories of what was converted from its files."""

    @property
    def snapshot(self) -> Path | None:
        """The files of the main revision, or of any."""
        return self.revisions.get("main") or next(iter(self.revisions.values()), None)


def place(variables: Mapping[str, str], chosen: str | None = None) -> Path:
    """The hub's cache: where a flag says, else by the rules of huggingface_hub."""
    if chosen := chosen or variables.get("HUGGINGFACE_HUB_CACHE") or variables.get("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    cache = variables.get("XDG_CACHE_HOME") or Path(variables.get("HOME", "/"), ".cache")
    return Path(variables.get("HF_HOME") or Path(cache, "huggingface")).expanduser() / "hub"


def models(variables: Mapping[str, str], chosen: str | None = None) -> list[CachedModel]:
    """All models of the cache, by name."""
    cache = place(variables, chosen)
    made = list(_made(converted.caches_of(variables, str(cache))))
    found = []
    with contextlib.suppress(OSError):
        for directory in sorted(cache.glob(f"{PREFIX}*"), key=lambda path: path.name.lower()):
            if directory.is_dir():
                found.append(_model(directory, made))
    return found


def find(model_id: str, variables: Mapping[str, str], chosen: str | None = None) -> CachedModel | None:
    """The model of this name; case does not matter."""
    return next((model for model in models(variables, chosen) if model.id.lower() == model_id.lower()), None)


def remove(model: CachedModel) -> None:
    """Delete a model and what was made of it. Raises DownloadError."""
    for directory in (*model.made, model.directory):
        try:
            shutil.rmtree(directory)
        except OSError as error:
            raise DownloadError(f"{directory} cannot be removed: {error.strerror or error}") from None
    locks = model.directory.parent / ".locks" / model.directory.name
    shutil.rmtree(locks, ignore_errors=True)


def _model(directory: Path, made: list[tuple[Path, Path]]) -> CachedModel:
    model = CachedModel(directory.name.removeprefix(PREFIX).replace("--", "/"), directory)
    inside = directory.resolve()
    model.made = [path for path, source in made if source.is_relative_to(inside)]
    for path in (*_files(directory / "blobs"), *_files(directory / "snapshots")):
        facts = path.lstat()
        if path.name.endswith(UNFINISHED):
            model.unfinished_bytes += facts.st_size
        else:
            model.bytes += facts.st_size
            model.used = max(model.used, facts.st_atime)
    model.bytes += sum(path.lstat().st_size for one in model.made for path in _files(one))
    snapshots = directory / "snapshots"
    names = {}
    for ref in _files(directory / "refs"):
        with contextlib.suppress(OSError, UnicodeError):
            names[ref.read_text().strip()] = str(ref.relative_to(directory / "refs"))
    with contextlib.suppress(OSError):
        for snapshot in sorted(snapshots.iterdir()):
            model.revisions[names.get(snapshot.name, snapshot.name)] = snapshot
    return model


def _made(caches: list[Path]) -> Iterator[tuple[Path, Path]]:
    """Directories of converted models -> a file that each was made from."""
    for cache in dict.fromkeys(caches):
        for pattern in (f"{converted.FOLDER}/*/*", f"{gguf.FOLDER}/*"):
            for directory in cache.glob(pattern):
                with contextlib.suppress(OSError):
                    if link := next((path for path in directory.iterdir() if path.is_symlink()), None):
                        yield directory, link.resolve()


def _files(directory: Path) -> Iterator[Path]:
    """Regular files below a directory; links are not followed."""
    with contextlib.suppress(OSError):
        for path in directory.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path
