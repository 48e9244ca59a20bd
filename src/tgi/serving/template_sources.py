"""Where chat templates come from: a flag, the files of a checkpoint, the built-in ones.

Owns which source wins, and a sentence for each way in which one can be damaged. Does not own what becomes
of the text (`chat_template`).
"""

from __future__ import annotations

import importlib.resources
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tgi.errors import ArgumentError, ModelError
from tgi.json_files import read_json

MAX_BYTES = 16 << 20
"""Of a file with a template; the longest known ones have 20 KB."""


def find(model_path: Path, tokenizer_config_path: Path | None = None, chosen: str | None = None) -> dict[str, str]:
    """Name ("default", "tool_use" ...) -> text of the templates; empty where there are none.

    The first of: `chosen` (a file or a built-in name), the given tokenizer config, chat_template.jinja with
    additional_chat_templates/, chat_template.json, tokenizer_config.json. Raises ModelError, or ArgumentError for
    `chosen`.
    """
    if chosen is not None:
        return read_chosen(chosen)
    return next((sources for sources in _candidates(model_path, tokenizer_config_path) if sources), {})


def _candidates(model_path: Path, tokenizer_config_path: Path | None) -> Iterator[dict[str, str]]:
    if tokenizer_config_path is not None:
        yield _of_config(tokenizer_config_path)
    yield _jinja_files(model_path)
    yield _of_config(model_path / "chat_template.json")
    yield _of_config(model_path / "tokenizer_config.json")


def read_chosen(chosen: str) -> dict[str, str]:
    """What `--chat-template` names: a built-in template, or a file with jinja or, as *.json, with a tokenizer config.

    Raises ArgumentError.
    """
    if chosen in builtin_names():
        return {"default": (_builtin_directory() / f"{chosen}.jinja").read_text(encoding="utf-8")}
    path = Path(chosen).expanduser()
    if not path.exists():
        names = ", ".join(builtin_names())
        raise ArgumentError(f"`chat_template` {chosen} is neither a file nor a built-in template, which are {names}")
    try:
        sources = _of_config(path) if path.suffix == ".json" else {"default": read_text(path)}
    except ModelError as error:
        raise ArgumentError(f"`chat_template`: {error}") from None
    if not sources:
        raise ArgumentError(f"`chat_template` {chosen} holds no chat_template")
    return sources


def builtin_names() -> list[str]:
    """Names that `--chat-template` takes."""
    return sorted(file.stem for file in _builtin_directory().glob("*.jinja"))


def _builtin_directory() -> Path:
    return Path(str(importlib.resources.files("tgi.serving") / "chat_templates"))


def read_text(path: Path) -> str:
    """The text of a template file. Raises ModelError."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise ModelError(f"{path} is no file: a chat template is a text file")
        if about.st_size > MAX_BYTES:
            raise ModelError(f"{path} has {about.st_size} bytes: a chat template has at most {MAX_BYTES}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8 (at byte {error.start}): save the template as UTF-8") from None


def _jinja_files(path: Path) -> dict[str, str]:
    files = {file.stem: file for file in sorted((path / "additional_chat_templates").glob("*.jinja"))}
    default = path / "chat_template.jinja"
    if default.exists() or default.is_symlink():
        files["default"] = default
    return {name: read_text(file) for name, file in files.items()}


def _of_config(path: Path) -> dict[str, str]:
    """`chat_template` of a config: one text, a list of {name, template}, or an object of name -> template."""
    value = read_json(path).get("chat_template")
    if value is None:
        return {}
    if isinstance(value, str):
        named: Mapping[Any, Any] = {"default": value}
    elif isinstance(value, dict):
        named = value
    elif isinstance(value, list):
        named = {}
        for entry in value:
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or "template" not in entry:
                raise ModelError(f'{path}: an entry of chat_template is not {{"name": text, "template": text}}')
            named[entry["name"]] = entry["template"]
    else:
        raise ModelError(f"{path}: chat_template is {_kind(value)}, not a text or a list of named texts")
    return {name: _checked(text, name, path) for name, text in named.items()}


def _checked(text: Any, name: str, path: Path) -> str:
    if not isinstance(text, str):
        raise ModelError(f"{path}: the chat template {name!r} is {_kind(text)}, not a text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"{path}: the chat template {name!r} holds half a character ({error.reason})") from None
    return text


def _kind(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "a number" if isinstance(value, (int, float)) else "a list" if isinstance(value, list) else "an object"
