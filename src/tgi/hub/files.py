"""Which files of a model repository are needed: names in, names out.

Used for the list of a hub repository and of a local directory alike. Which files hold the weights is
`models.weight_files`' rule; here its errors are those of a download.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from tgi.errors import DownloadError, ModelError
from tgi.models import weight_files
from tgi.models.weight_files import INDEX_SUFFIX, WeightFiles
from tgi.untrusted import check_file, printable

SMALL_FILES = (
    "*.json",
    "*_Pooling/config.json",
    "*.jinja",
    "additional_chat_templates/*.jinja",
    "*.txt",
    "*.model",
    "*.spm",
)
"""Configuration, tokenizer and templates; taken whole, they are small."""
CODE_FILES = ("*.py",)
"""Only with --trust-remote-code."""


def small_files(names: Collection[str]) -> list[str]:
    """What is needed besides the weights."""
    return sorted(name for name in names if _matches(name, SMALL_FILES) and not name.endswith(INDEX_SUFFIX))


def code_files(names: Collection[str]) -> list[str]:
    """The checkpoint's own Python code, for --trust-remote-code."""
    return sorted(name for name in names if _matches(name, CODE_FILES))


def choose(names: Collection[str], local: Callable[[str], Path]) -> WeightFiles:
    """The weight files by the rule of `models.weight_files`; local: gives the path of an index by its name.

    Raises `DownloadError` when an index is none, or names missing files.
    """
    with _as_download_error():
        return weight_files.choose(names, lambda index: read_index(local(index)))


def in_directory(directory: Path) -> WeightFiles:
    """The same for a directory. Raises `DownloadError`."""
    with _as_download_error():
        return weight_files.in_directory(directory)


def check(directory: Path) -> None:
    """Refuse what lies where a file is to be read and is none, or only a pointer to one. Raises `DownloadError`."""
    with _as_download_error():
        chosen = weight_files.in_directory(directory)
        names = [path.name for path in directory.iterdir() if not path.is_dir()]
        for name in [*small_files(names), *chosen.names]:
            check_file(directory / name)


def names(directory: Path) -> list[str]:
    """Of all that is in a directory. Raises `DownloadError` if that is secret."""
    with _as_download_error():
        return [path.name for path in directory.iterdir()]


def directory(name: str) -> Path | None:
    """The local directory that a model's name is; None for what is none. Raises `DownloadError` if that is secret."""
    with _as_download_error():
        try:
            path = Path(name).expanduser()
            return path if path.is_dir() else None
        except PermissionError:
            raise
        except (OSError, RuntimeError, ValueError):  # too long, of a home that is not there, with a NUL
            return None


def is_file(path: str | Path) -> bool:
    """Whether a regular file is there. Raises `DownloadError` if that is secret."""
    with _as_download_error():
        try:
            return Path(path).expanduser().is_file()
        except PermissionError:
            raise
        except (OSError, RuntimeError, ValueError):
            return False


def read_index(path: Path) -> list[str]:
    """The weight files that an index names, each once. Raises `DownloadError`."""
    with _as_download_error():
        return sorted(set(weight_files.read_index(path).values()))


@contextlib.contextmanager
def _as_download_error() -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        raise DownloadError(str(error)) from None
    except OSError as error:
        name = printable(error.filename or "the model's directory")
        raise DownloadError(f"{name} cannot be read: {error.strerror or error}") from None


def no_weights(model_id: str, names: Collection[str]) -> DownloadError:
    """The error for a model without usable weights, with what was found instead."""
    gguf = [name for name in names if name.endswith(".gguf")]
    others = [name for name in names if name.endswith((".h5", ".msgpack", ".onnx", ".ckpt", ".pth"))]
    found = (
        f"; {gguf[0]} is a GGUF file: choose it with --gguf-file"
        if gguf
        else f"; {others[0]} belongs to another framework"
        if others
        else ""
    )
    return DownloadError(f"{model_id} has no weights: no *.safetensors, *.bin or *.pt file{found}")


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    # fnmatch lets * run over slashes; a pattern without one is meant for the top directory
    return any(name.count("/") == pattern.count("/") and fnmatch.fnmatch(name, pattern) for pattern in patterns)
