"""Keywords said with others, against jsonschema's verdict on values and llguidance's on schemas."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import jsonschema
import pytest
from llguidance import LLMatcher

from tgi.serving.grammars.expressible import expressible

NAMES = {"type": "string", "description": "x"}
SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "propertyNames": NAMES, "additionalProperties": {"type": "integer"}},
    {"propertyNames": True, "properties": {"a": {"type": "integer"}}, "additionalProperties": False},
    {"type": "object", "propertyNames": {**NAMES, "enum": ["a", "b"]}, "additionalProperties": {"type": "integer"}},
    {"type": "object", "propertyNames": {"const": "a"}, "properties": {"a": {"type": "null"}, "b": {}}},
    {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "required": ["a"]},
    {"type": "object", "propertyNames": {"pattern": "^a"}, "additionalProperties": {"type": "integer"}},
    {"type": "object", "properties": {"a": {"type": "integer"}}, "unevaluatedProperties": False},
    {"type": "array", "uniqueItems": False, "items": {"type": "integer"}},
    {"type": "array", "uniqueItems": True, "maxItems": 1},
    {"type": "integer", "then": {"const": 5}, "else": False},
    {"type": "integer", "if": {"const": 5}, "dependentRequired": {}},
]
OBJECTS = [dict(zip("ab", two, strict=False)) for two in itertools.product([1, None, "x"], repeat=2)]
VALUES = [1, 5, None, "a", [], [1], [1, 1], {}, {"a": 1}, {"b": 1}, {"ab": 1}, {"a": None}, {"c": "x"}, *OBJECTS]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_said_with_others(schema: dict[str, Any]) -> None:
    given = copy.deepcopy(schema)
    changed = expressible(schema, "", [])
    assert schema == given, "what a request holds is not touched"
    one, two = jsonschema.Draft202012Validator(schema), jsonschema.Draft202012Validator(changed)
    for value in VALUES:
        assert one.is_valid(value) == two.is_valid(value), value
    assert LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(changed))) == "", changed


@pytest.mark.parametrize(
    "schema",
    [
        {"uniqueItems": True, "maxItems": 2},
        {"propertyNames": {"pattern": "^a"}, "properties": {"b": {}}},
        {"propertyNames": {"maxLength": 3}},
        {"propertyNames": {"enum": ["a"], "pattern": "b"}},
        {"propertyNames": {"enum": ["a"]}, "patternProperties": {"a": {}}},
        {"unevaluatedProperties": False, "allOf": [{"properties": {"a": {}}}]},
        {"if": {}, "then": False},
    ],
)
def test_left_as_it_is(schema: dict[str, Any]) -> None:
    assert expressible(schema, "", []) == schema
