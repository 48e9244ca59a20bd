"""How a checkpoint's author makes vectors: what sentence-transformers' files say of pooling.

`modules.json` lists what a text goes through after the model, and the config of its module of pooling names which
hidden states count. `--pooling` stands above the latter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tgi import untrusted
from tgi.errors import ModelError
from tgi.json_files import read_json
from tgi.messages import PoolingKind

MODULES = "modules.json"
DONE = ("Transformer", "Pooling", "Normalize")
"""Modules that are done here; a vector is normalised whether or not the last is there."""
KINDS: dict[str, PoolingKind] = {
    "mean": "mean",
    "mean_tokens": "mean",
    "mean_sqrt_len_tokens": "mean",  # of another length, which normalising takes away
    "lasttoken": "last",
    "cls": "cls",
    "cls_token": "cls",
}
"""sentence-transformers' names -> ours."""
DEFAULT: PoolingKind = "last"
"""Of decoders: only the last token has seen all of the text."""


@dataclass(frozen=True, slots=True)
class Pooling:
    """What hidden states become a vector, and who says so."""

    kind: PoolingKind = DEFAULT
    source: str = "default"
    """A file, or the flag."""
    problem: str | None = None
    """Why there are no vectors of this model, a sentence."""


def find_pooling(model_path: Path, wanted: PoolingKind | None = None) -> Pooling:
    """That of a directory. `wanted`: what `--pooling` says. Raises ModelError for files that cannot be read."""
    modules = _modules(model_path / MODULES)
    undone = [name for name, _ in modules if name not in DONE]
    if undone:
        name = untrusted.printable(undone[0], 40)
        problem = f"{MODULES} puts a module {name} behind the model, which is not supported"
        return Pooling(wanted or DEFAULT, MODULES, problem)
    if wanted is not None:
        return Pooling(wanted, "--pooling")
    folder = next((path for name, path in modules if name == "Pooling"), "1_Pooling")
    if not folder or len(PurePosixPath(folder).parts) != 1 or folder in (".", ".."):
        raise ModelError(f"{MODULES}: the path {untrusted.printable(folder, 80)} is no folder of the model")
    file = f"{folder}/config.json"
    config = read_json(model_path / folder / "config.json")
    return _kind(config, file) if config else Pooling()


def _modules(file: Path) -> list[tuple[str, str]]:
    """Name of the class and folder of each; none without the file."""
    if not file.exists():
        return []
    content = untrusted.read_json(file)
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise ModelError(f"{MODULES} does not hold a JSON array of objects")
    return [(str(one.get("type")).rpartition(".")[2], str(one.get("path", ""))) for one in content]


def _kind(config: dict[str, Any], file: str) -> Pooling:
    """One of ours, or the problem that it is another, or several together."""
    prefix = "pooling_mode_"
    names = [key.removeprefix(prefix) for key, value in config.items() if key.startswith(prefix) and value is True]
    mode = config.get("pooling_mode")
    if not names and mode is not None:
        names = [str(one) for one in mode] if isinstance(mode, list) else [str(mode)]
    if not names:
        return Pooling(DEFAULT, file, f"{file} names no pooling: choose one with --pooling")
    if len(names) > 1 or names[0] not in KINDS:
        shown = untrusted.printable(" and ".join(names), 80)
        return Pooling(DEFAULT, file, f"{file} wants pooling by {shown}, which is not supported: see --pooling")
    return Pooling(KINDS[names[0]], file)
