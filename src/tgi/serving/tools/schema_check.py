"""Whether a schema of a tool's arguments is one, said by path before anything is made of it.

Owns the types of JSON schema's keywords and bounds on a schema's size. What a grammar can express is the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

MOST_NODES = 20_000
"""Objects and lists in all schemas of a request."""
DEEPEST = 64
"""Levels of schemas within schemas."""
DEEPEST_VALUE = 200
"""Levels of arrays and objects, whatever they mean."""
TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
SCHEMAS = frozenset({"additionalProperties", "items", "not", "contains", "propertyNames", "if", "then", "else"})
LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(value: Any) -> bool:
    return _number(value) and value >= 0 and value == int(value)


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _types(value: Any) -> bool:
    given = value if isinstance(value, list) else [value]
    return bool(given) and all(isinstance(one, str) and one in TYPES for one in given)


_KEYWORDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (_types, f"one of {', '.join(sorted(TYPES))}, or a list of them"),
    "required": (_names, "a list of names"),
    "enum": (lambda value: isinstance(value, list) and len(value) > 0, "a list of values"),
    **{name: (lambda value: isinstance(value, str), "a string") for name in ("pattern", "format", "$ref")},
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), (_number, "a number")),
    **dict.fromkeys(_COUNTS, (_count, "a whole number")),
}


class Nodes:
    """How much of the allowance is left."""

    def __init__(self, most: int = MOST_NODES) -> None:
        self.left = most


def problem(schema: Any, nodes: Nodes) -> str | None:
    """What is wrong with a schema, with the path in it; None if nothing is."""
    if _is_deep(schema):
        return f"it is nested more than {DEEPEST_VALUE} levels deep"
    pending: list[tuple[str, Any, int]] = [("", schema, 0)]
    while pending:
        path, value, depth = pending.pop()
        nodes.left -= 1
        if nodes.left < 0:
            return f"the schemas of tools may have {MOST_NODES} parts in all"
        if depth > DEEPEST:
            return f"{_shown(path)} is nested more than {DEEPEST} levels deep"
        if isinstance(value, bool) and path:
            continue
        if not isinstance(value, Mapping):
            return f"{_shown(path)} must be a JSON schema, an object"
        found = _keyword(path, value) or _endless(path, value, schema)
        if found is not None:
            return found
        pending += _below(path, value, depth + 1)
    return None


def _is_deep(value: Any) -> bool:
    """Whether any value in it, an example or a default, is too deep for whoever walks through it."""
    level = [value] if isinstance(value, Mapping | list) else []
    for _ in range(DEEPEST_VALUE):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, Mapping) else one)
            if isinstance(inner, Mapping | list)
        ]
        if not level:
            return False
    return True


def _keyword(path: str, schema: Mapping[str, Any]) -> str | None:
    for name, (fits, wanted) in _KEYWORDS.items():
        if name in schema and not fits(schema[name]):
            return f"{_shown(f'{path}.{name}')} must be {wanted}"
    for name in LISTS:
        if name in schema and not (isinstance(schema[name], list) and schema[name]):
            return f"{_shown(f'{path}.{name}')} must be a list of schemas"
    for name in MAPS:
        if name in schema and not isinstance(schema[name], Mapping):
            return f"{_shown(f'{path}.{name}')} must be an object of schemas"
    return None


def referred(schema: Any, reference: Any) -> Any:
    """What a reference by path within the schema points to; None for others."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return None
    place = schema
    for step in reference.split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if not isinstance(place, Mapping) or name not in place:
            return None
        place = place[name]
    return place


def _endless(path: str, part: Mapping[str, Any], schema: Any) -> str | None:
    """Of a reference whether it leads back to itself with nothing between, so that nothing can fit it."""
    seen: set[str] = set()
    at: Any = part
    while isinstance(at, Mapping) and isinstance(reference := at.get("$ref"), str):
        if reference in seen or len(seen) == DEEPEST:
            return f"{_shown(f'{path}.$ref')} refers to itself"
        seen.add(reference)
        at = referred(schema, reference)
    return None


def _below(path: str, schema: Mapping[str, Any], depth: int) -> list[tuple[str, Any, int]]:
    below = []
    for name, value in schema.items():
        if name in SCHEMAS:
            items = enumerate(value) if isinstance(value, list) else [("", value)]
            below += [(f"{path}.{name}{f'.{key}' if key != '' else ''}", one, depth) for key, one in items]
        elif name in LISTS:
            below += [(f"{path}.{name}.{place}", one, depth) for place, one in enumerate(value)]
        elif name in MAPS:
            below += [(f"{path}.{name}.{key}", one, depth) for key, one in value.items()]
    return below


def _shown(path: str) -> str:
    path = path.removeprefix(".")
    return f"`{path[:128]}`" if path else "it"
