"""Which files of a model repository are needed: names in, names out.

Pure but for `read_index`; used for the list of a hub repository and of a local directory alike.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Collection
from pathlib import Path

from tgi.errors import DownloadError

SMALL_FILES = ("*.json", "*.jinja", "additional_chat_templates/*.jinja", "tokenizer.model", "*.txt", "*.model")
"""Configuration, tokenizer and templates; taken whole, they are small."""
CODE_FILES = ("*.py",)
"""Only with --trust-remote-code."""
WEIGHT_FORMATS = (".safetensors", ".bin", ".pt")
"""In order of preference; all but the first are converted."""
_NO_WEIGHTS = ("arguments", "args", "training", "optimizer", "scheduler", "rng_state")
_INDEX = ".index.json"


def small_files(names: Collection[str], *, code: bool = False) -> list[str]:
    """What is needed besides the weights."""
    patterns = SMALL_FILES + (CODE_FILES if code else ())
    return sorted(name for name in names if _matches(name, patterns) and not name.endswith(_INDEX))


def index_file(names: Collection[str]) -> str | None:
    """The index of sharded weights in the preferred format, if there is one."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if name in names:
            return None
        if name + _INDEX in names:
            return name + _INDEX
    return None


def weight_files(names: Collection[str], sharded: Collection[str] = ()) -> list[str]:
    """The weight files to use, in one format.

    `sharded`: the files that an index names; they must all be there. Without an index the usual single
    file is taken alone, since some repositories hold the same weights twice; else all files of the
    format. Raises `DownloadError` when an index names missing files.
    """
    if sharded:
        if missing := sorted(set(sharded) - set(names)):
            raise DownloadError(
                f"{len(missing)} of {len(sharded)} weight files are missing, such as {missing[0]}: "
                "the model is incomplete, fetch it again"
            )
        return sorted(sharded)
    for suffix in WEIGHT_FORMATS:
        found = sorted(
            name
            for name in names
            if name.endswith(suffix) and "/" not in name and not any(word in name for word in _NO_WEIGHTS)
        )
        usual = {".safetensors": "model.safetensors", ".bin": "pytorch_model.bin"}.get(suffix)
        if usual in found:
            return [usual]
        if found:
            return found
    return []


def read_index(path: Path) -> list[str]:
    """The weight files that an index names, each once. Raises `DownloadError`."""
    try:
        names = set(json.loads(path.read_text())["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(f"{path} is not an index of weight files: {error!r}") from None
    if not names or not all(isinstance(name, str) and "/" not in name and "\\" not in name for name in names):
        raise DownloadError(f"{path} names files outside its directory, or none")
    return sorted(names)


def no_weights(model_id: str, names: Collection[str]) -> DownloadError:
    """The error for a model without usable weights, with what was found instead."""
    gguf = [name for name in names if name.endswith(".gguf")]
    others = [name for name in names if name.endswith((".h5", ".msgpack", ".onnx", ".ckpt", ".pth"))]
    found = (
        f"; {gguf[0]} is a GGUF file, which is not supported"
        if gguf
        else f"; {others[0]} belongs to another framework"
        if others
        else ""
    )
    return DownloadError(f"{model_id} has no weights: no *.safetensors, *.bin or *.pt file{found}")


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    # fnmatch lets * run over slashes; a pattern without one is meant for the top directory
    return any(name.count("/") == pattern.count("/") and fnmatch.fnmatch(name, pattern) for pattern in patterns)
