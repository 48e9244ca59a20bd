"""Keywords that llguidance does not know, where they say nothing or can be said with others.

zod writes `propertyNames` for every record, other generators write `uniqueItems: false`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NOTES = frozenset({"title", "description", "$comment", "examples", "default", "$schema"})
_APPLICATORS = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "dependentSchemas", "not")
"""What properties may be evaluated by besides a schema's own keywords."""


def simpler(schema: dict[str, Any]) -> dict[str, Any]:
    """The same values fit; changes `schema`."""
    if schema.get("uniqueItems") is False or (schema.get("uniqueItems") is True and _at_most_one(schema)):
        del schema["uniqueItems"]
    if schema.get("dependentRequired") == {}:
        del schema["dependentRequired"]
    if "if" not in schema:
        schema.pop("then", None)
        schema.pop("else", None)
    elif "then" not in schema and "else" not in schema:
        del schema["if"]
    if "unevaluatedProperties" in schema and not any(name in schema for name in _APPLICATORS):
        rest = schema.pop("unevaluatedProperties")
        schema.setdefault("additionalProperties", rest)
    return _without_names(schema)


def _at_most_one(schema: Mapping[str, Any]) -> bool:
    most = schema.get("maxItems")
    return isinstance(most, int | float) and most <= 1


def _without_names(schema: dict[str, Any]) -> dict[str, Any]:
    """`propertyNames` as properties or patterns, if they say it."""
    names = schema.get("propertyNames")
    if names is True:
        names = {}
    if not isinstance(names, Mapping):
        return schema
    said = {name: value for name, value in names.items() if name not in _NOTES and (name, value) != ("type", "string")}
    if not said:
        del schema["propertyNames"]
        return schema
    own, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    if "patternProperties" in schema or not isinstance(own, Mapping):
        return schema
    known = said.get("enum", [said["const"]] if "const" in said else None)
    if len(said) == 1 and isinstance(known, list) and all(isinstance(one, str) for one in known):
        del schema["propertyNames"]
        schema["properties"] = {name: own.get(name, rest) for name in dict.fromkeys(known)}
        schema["additionalProperties"] = False
    elif said.keys() == {"pattern"} and not own and isinstance(said["pattern"], str):
        del schema["propertyNames"]
        schema["patternProperties"] = {said["pattern"]: rest}
        schema["additionalProperties"] = False
    return schema
