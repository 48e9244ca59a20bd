"""JSON files that come with a model: an object, or one sentence that says what is wrong with the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tgi.errors import ModelError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when there is no such file. Raises ModelError when it is not one."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, not UTF-8, or a number of thousands of digits
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    except RecursionError:
        raise ModelError(f"{path} cannot be read: its arrays and objects are nested too deeply") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} does not hold a JSON object")
    return content
