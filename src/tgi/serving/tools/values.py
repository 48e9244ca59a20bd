"""Values that models write other than as JSON, made into the JSON text of arguments."""

from __future__ import annotations

import ast
import json
from typing import Any

from tgi.serving.tools.schemas import types

_WORDS = {"True": "true", "False": "false", "None": "null"}
LONGEST = 100_000
"""Characters of a literal; a longer one is taken as text."""


def json_of_text(text: str, schema: Any) -> str:
    """A value written without quotes: JSON where it is some and may be, else a string."""
    kinds, bare = types(schema), text.strip()
    bare = _WORDS.get(bare, bare)
    try:
        value = json.loads(bare, parse_constant=_refused)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    if "string" in kinds and not isinstance(value, str) and not kinds & _kinds(value):
        return json.dumps(text, ensure_ascii=False)
    return bare


def json_of_literal(text: str) -> str:
    """A Python literal, or JSON; what is neither becomes a string."""
    bare = text.strip()
    try:
        json.loads(bare, parse_constant=_refused)
        return bare
    except (ValueError, RecursionError):
        pass
    try:
        value = ast.literal_eval(bare) if len(bare) <= LONGEST else bare
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return json.dumps(bare, ensure_ascii=False)


def _kinds(value: Any) -> set[str]:
    match value:
        case None:
            return {"null"}
        case bool():
            return {"boolean"}
        case int():
            return {"integer", "number"}
        case float():
            return {"number"}
        case list():
            return {"array"}
    return {"object"}


def _refused(constant: str) -> Any:
    raise ValueError(constant)
