"""What formats that write arguments one by one need to know of a schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_DEFINITIONS = ("$defs", "definitions")
_LOOKAROUND = re.compile(r"\(\?(?:[=!]|<[=!])|\\[1-9]")
"""What no automaton can do; zod writes it into patterns of addresses."""


def required(schema: Mapping[str, Any]) -> frozenset[str]:
    names = schema.get("required")
    return frozenset(name for name in names if isinstance(name, str)) if isinstance(names, list) else frozenset()


def property_schema(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The schema of one argument, with the definitions that it may refer to."""
    properties = schema.get("properties")
    found = properties.get(name) if isinstance(properties, Mapping) else None
    definitions = {key: schema[key] for key in _DEFINITIONS if key in schema}
    return {**(found if isinstance(found, Mapping) else {}), **definitions}


def types(schema: Any) -> frozenset[str]:
    """The JSON types a value may have by `type`, `anyOf`, `enum` and `const`; none: it does not say."""
    if not isinstance(schema, Mapping):
        return frozenset()
    if (values := enumerated(schema)) is not None:
        return frozenset(map(_type, values))
    given = schema.get("type")
    if isinstance(given, str):
        return frozenset({given})
    if isinstance(given, list):
        return frozenset(one for one in given if isinstance(one, str))
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            return frozenset().union(
                *(types(one) for one in schema[key] if isinstance(one, Mapping) and key not in one)
            )
    return frozenset()


def is_text(schema: Any) -> bool:
    """Whether a value is a string and can be nothing else."""
    return types(schema) == {"string"}


def enumerated(schema: Any) -> list[Any] | None:
    """The values that there are, if they are listed."""
    if not isinstance(schema, Mapping):
        return None
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) and values else None


def without_lookaround(schema: Any) -> Any:
    """The schema without the patterns that a grammar cannot have: look-around and references to groups."""
    if isinstance(schema, list):
        return [without_lookaround(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        name: without_lookaround(value)
        for name, value in schema.items()
        if not (name == "pattern" and isinstance(value, str) and _LOOKAROUND.search(value))
    }


def _type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"
