"""`oneOf` whose alternatives exclude each other is `anyOf`, which a grammar can express.

llguidance finds that out by itself only where nothing is a `$ref`, and pydantic writes unions with a discriminator, and
others optional objects, with references. What is not proven here is left as it is, and refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from itertools import combinations
from typing import Any

from tgi.serving.tools.schema_check import referred

MOST_COMPARISONS = 2_000
"""In one schema, each of some 10 us; long lists count as more."""
LISTED = 16
"""Items of lists that take as long as a comparison."""
MOST_DISCRIMINATORS = 16
"""Properties that are tried."""
MOST_CONDITIONS = 32
"""Of one alternative."""
DEEPEST = 6
"""Properties and alternatives that a comparison goes into."""
TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_OBJECT = frozenset({"object"})
_LISTS = ("enum", "required", "allOf", "anyOf", "oneOf", "type")


class Alternatives:
    """Tells alternatives of one schema apart."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = MOST_COMPARISONS

    @cached_property
    def _has_bases(self) -> bool:
        """Whether a part of the schema may have an identity of its own, which its references begin at."""
        pending = list(self._root.values()) if isinstance(self._root, Mapping) else []
        while pending:
            one = pending.pop()
            if isinstance(one, Mapping):
                if isinstance(one.get("$id"), str):
                    return True
                pending += one.values()
            elif isinstance(one, list):
                pending += one
        return False

    def as_any_of(self, schema: dict[str, Any]) -> dict[str, Any]:
        """With `anyOf` in place of `oneOf`, if no value fits two alternatives."""
        options = schema.get("oneOf")
        if not isinstance(options, list) or "anyOf" in schema:
            return schema
        pairs = combinations(options, 2)
        if not self._have_discriminator(options) and not all(self._apart(one, other, DEEPEST) for one, other in pairs):
            return schema
        return {"anyOf" if name == "oneOf" else name: value for name, value in schema.items()}

    def _have_discriminator(self, options: list[Any]) -> bool:
        """Whether all are objects with a property whose values tell which one it is: found without comparing pairs."""
        each = [self._conditions(option) for option in options]
        if not each or any(_types(conditions) != _OBJECT for conditions in each):
            return False
        required = ({name for one in ones for name in _list(one, "required") if isinstance(name, str)} for ones in each)
        common = sorted(set.intersection(*required))
        return any(self._tells_apart(name, each) for name in common[:MOST_DISCRIMINATORS])

    def _tells_apart(self, name: str, each: list[list[Mapping[str, Any]]]) -> bool:
        seen: set[str] = set()
        for ones in each:
            schemas = [_map(one, "properties").get(name) for one in ones]
            values = _values([condition for schema in schemas for condition in self._conditions(schema)])
            if values is None or values & seen:
                return False
            seen |= values
        return True

    def _apart(self, one: Any, other: Any, depth: int) -> bool:
        """Whether it is certain that no value fits both."""
        self._left -= 1
        if depth == 0 or self._left < 0:
            return False
        ones, others = self._conditions(one), self._conditions(other)
        self._left -= sum(len(_list(each, name)) for each in [*ones, *others] for name in _LISTS) // LISTED
        if self._left < 0:
            return False
        common = _types(ones) & _types(others)
        if not common:
            return True
        values, other_values = _values(ones), _values(others)
        if values is not None and other_values is not None and not values & other_values:
            return True
        if common <= _OBJECT and (self._by_property(ones, others, depth) or self._by_property(others, ones, depth)):
            return True
        return self._each_apart(ones, other, depth) or self._each_apart(others, one, depth)

    def _each_apart(self, conditions: list[Mapping[str, Any]], other: Any, depth: int) -> bool:
        """Whether all alternatives of one of these conditions are apart from the other schema."""
        return any(
            isinstance(options := condition.get(key), list)
            and all(self._apart(one, other, depth - 1) for one in options)
            for condition in conditions
            for key in ("anyOf", "oneOf")
        )

    def _by_property(self, ones: list[Mapping[str, Any]], others: list[Mapping[str, Any]], depth: int) -> bool:
        """Whether objects of the first must have a property that those of the second have otherwise, or never."""
        closed = [
            one for one in others if one.get("additionalProperties") is False and not one.get("patternProperties")
        ]
        for name in {name for one in ones for name in _list(one, "required") if isinstance(name, str)}:
            if any(name not in _map(one, "properties") for one in closed):
                return True
            mine = [one["properties"][name] for one in ones if name in _map(one, "properties")]
            theirs = [one["properties"][name] for one in others if name in _map(one, "properties")]
            if any(self._apart(one, other, depth - 1) for one in mine for other in theirs):
                return True
        return False

    def _conditions(self, schema: Any) -> list[Mapping[str, Any]]:
        """Schemas that a value must fit all: this one, those of `allOf`, and in place of a reference what it points to.

        Draft 7 knows nothing beside a reference, so that what is there is not relied on.
        """
        found: list[Mapping[str, Any]] = []
        pending, steps = [schema], 0
        while pending and len(found) + steps < MOST_CONDITIONS:
            one = pending.pop()
            if not isinstance(one, Mapping) or any(one is other for other in found):
                continue
            if "$ref" in one:
                steps += 1
                pending.append(None if self._has_bases else referred(self._root, one["$ref"]))
                continue
            found.append(one)
            pending += _list(one, "allOf")
        return found


def _types(conditions: list[Mapping[str, Any]]) -> frozenset[str]:
    """JSON types that a value may have; numbers may be integers, too."""
    types = TYPES
    for condition in conditions:
        given = condition.get("type")
        if isinstance(given, str | list):
            named = {given} if isinstance(given, str) else {one for one in given if isinstance(one, str)}
            types &= named | ({"integer"} if "number" in named else set())
        values = _values([condition])
        if values is not None:
            types &= {type for value in values for type in _TYPES_OF_JSON.get(value[0], ("number", "integer"))}
    return types


_TYPES_OF_JSON = {
    '"': ("string",), "{": ("object",), "[": ("array",), "t": ("boolean",), "f": ("boolean",), "n": ("null",),
}  # fmt: skip


def _values(conditions: list[Mapping[str, Any]]) -> set[str] | None:
    """The values that are listed, as JSON; None: they are not."""
    found: set[str] | None = None
    for condition in conditions:
        values = [condition["const"]] if "const" in condition else condition.get("enum")
        if isinstance(values, list):
            texts = {_text(value) for value in values}
            found = texts if found is None else found & texts
    return found


def _text(value: Any) -> str:
    """Equal for equal JSON values, 1 and 1.0 among them."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)


def _list(schema: Mapping[str, Any], name: str) -> list[Any]:
    value = schema.get(name)
    return value if isinstance(value, list) else []


def _map(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = schema.get(name)
    return value if isinstance(value, Mapping) else {}
