"""JSON files that come with a model: an object, or one sentence that says what is wrong with the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tgi import untrusted
from tgi.errors import ModelError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when there is no such file. Raises ModelError when it is not one."""
    if not path.exists():
        return {}
    content = untrusted.read_json(path)
    if not isinstance(content, dict):
        raise ModelError(f"{untrusted.printable(path)} does not hold a JSON object")
    return content
