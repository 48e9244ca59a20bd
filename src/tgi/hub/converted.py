"""Where the converted files of a model go whose own directory cannot be written to.

Owns the choice of a cache directory: one of links to the model's files, beside which the conversions write theirs. It
belongs to the files as they are: where one has another size or time, all is converted anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tgi.errors import DownloadError
from tgi.hub import files
from tgi.serving.tokenizer import SLOW_FILES
from tgi.settings.resolve import ModelFiles

logger = logging.getLogger(__name__)

FOLDER = "tgi-converted"


def needs_conversion(directory: Path) -> bool:
    """Whether weights or tokenizer have a form that is converted before serving. Raises `DownloadError`."""
    if not all(name.endswith(".safetensors") for name in files.in_directory(directory).names):
        return True
    slow = any((directory / name).is_file() for name in SLOW_FILES)
    return slow and not (directory / "tokenizer.json").is_file()


def place(model: ModelFiles, caches: list[Path]) -> ModelFiles:
    """The model where its conversions can be written: its own directory, or one in the first of `caches` that can be.

    Raises `DownloadError` when there is no such place.
    """
    directory = Path(model.path)
    if not needs_conversion(directory) or writable(directory):
        return model
    for cache in caches:
        target = cache / FOLDER / _digest(str(directory.resolve())) / _digest(_state(directory))
        with contextlib.suppress(OSError):
            target.mkdir(parents=True, exist_ok=True)
            _forget_earlier(target)
            for entry in directory.iterdir():
                with contextlib.suppress(FileExistsError):
                    (target / entry.name).symlink_to(entry.resolve())
            if writable(target):
                logger.warning("%s cannot be written to: what is converted of it is kept in %s", model.model_id, target)
                return replace(model, path=str(target))
    tried = ", ".join(map(str, caches))
    raise DownloadError(
        f"the files of {model.model_id} must be converted, and neither its directory nor a cache ({tried}) can be "
        "written to: give one with --huggingface-hub-cache"
    )


def caches_of(variables: Mapping[str, str], hub_cache: str | None) -> list[Path]:
    """Directories for what can be made again, the likeliest to be kept first."""
    found = [hub_cache, variables.get("HF_HUB_CACHE"), variables.get("HF_HOME"), variables.get("XDG_CACHE_HOME")]
    if home := variables.get("HOME"):
        found.append(str(Path(home, ".cache")))
    return [Path(place).absolute() for place in [*found, tempfile.gettempdir()] if place]


def writable(directory: Path) -> bool:
    """Whether files can be made there: tried, since modes do not tell of mounts that cannot be written to."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _state(directory: Path) -> str:
    facts = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in directory.iterdir())
    return repr(facts)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _forget_earlier(target: Path) -> None:
    """Remove what was converted of the same directory's earlier files."""
    for other in target.parent.iterdir():
        if other != target:
            shutil.rmtree(other, ignore_errors=True)
