"""`--config FILE`: flags by their names in YAML or TOML.

    model-id: qwen3-8b
    port: 9000
    api-key: [first, second]

Owns the file's form; values become text as on the command line, where `parse` reads and checks them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tgi.errors import ArgumentError
from tgi.untrusted import printable

LARGEST = 1 << 20
ENDINGS = (".yaml", ".yml", ".toml")
NOTHING = ("", "null", "~")
"""Values of YAML that leave a setting open."""


def read(name: str) -> Iterator[tuple[str, list[str]]]:
    """Each key of the file with its value as texts, one of them unless it is a list. Raises ArgumentError."""
    found = content(Path(name).expanduser())
    if found is None:
        return
    if not isinstance(found, dict):
        raise ArgumentError(f"`config` {name} must hold names of flags with their values, such as `port: 9000`")
    yield from entries(found, f"`config` {name}")


def entries(mapping: Mapping[Any, Any], where: str) -> Iterator[tuple[str, list[str]]]:
    """Each key with its value as texts; open settings are left out. Raises ArgumentError."""
    for key, value in mapping.items():
        values = value if isinstance(value, list) else [value]
        texts = [_text(one) for one in values]
        if not isinstance(key, str) or None in texts:
            raise ArgumentError(f"{where}: `{printable(key)}` must be a text, a number, true or false, or a list")
        if isinstance(value, list) or texts[0] not in NOTHING:
            yield key, [text for text in texts if text is not None]


def content(path: Path) -> Any:
    """What the file holds, texts for all values of YAML. Raises ArgumentError."""
    if path.suffix.lower() not in ENDINGS:
        raise ArgumentError(f"`config` {path} must be YAML or TOML: a file that ends in {', '.join(ENDINGS)}")
    try:
        if path.stat().st_size > LARGEST:
            raise ArgumentError(f"`config` {path} is too large for settings")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"`config` {path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ArgumentError(f"`config` {path} is not UTF-8") from None
    if path.suffix.lower() == ".toml":
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ArgumentError(f"`config` {path} is not TOML: {printable(error)}") from None
    import yaml  # nobody else needs it

    try:
        return yaml.load(text, yaml.BaseLoader)  # texts, lists and mappings, and nothing else
    except (yaml.YAMLError, RecursionError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" in line {place.line + 1}" if place is not None else ""
        raise ArgumentError(f"`config` {path} is not YAML{where}") from None


def _text(value: Any) -> str | None:
    """As it would be typed; None for what a flag cannot be."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int, float)) else None
