"""Which alternatives are told apart, against what jsonschema says of values and what llguidance compiles."""

from __future__ import annotations

import itertools
import json
import random
import time
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from llguidance import LLMatcher
from pydantic import BaseModel, Field

from tgi.serving.grammars.expressible import expressible

CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "a": {"type": "integer"}}, "required": ["kind"]}
DOG = {"type": "object", "properties": {"kind": {"enum": ["dog", "wolf"]}, "b": {}}, "required": ["kind"]}
DEFS = {"cat": CAT, "dog": DOG, "text": {"type": "string"}, "both": {"anyOf": [CAT, DOG]}, "a": {"$ref": "#/$defs/a"}}
CLOSED = {"type": "object", "properties": {"a": {}}, "additionalProperties": False}


def to(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


@pytest.mark.parametrize(
    "options",
    [
        [to("cat"), {"type": "null"}],
        [{"properties": CAT["properties"], "required": ["kind"]}, DOG],
        [to("cat"), to("dog")],
        [to("both"), {"type": "object", "properties": {"kind": {"const": "cow"}}, "required": ["kind"]}],
        [{"allOf": [to("cat"), {"required": ["a"]}]}, to("dog"), to("text"), {"type": ["null", "boolean"]}],
        [CLOSED, {"type": "object", "required": ["b"]}],
        [{"enum": ["a", 1]}, {"enum": [2, None]}],
    ],
)
def test_apart(options: list[Any]) -> None:
    schema = expressible({"oneOf": options, "$defs": DEFS}, "", [])
    assert schema["anyOf"] == options and "oneOf" not in schema
    assert LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(schema))) == ""


@pytest.mark.parametrize(
    "options",
    [
        [to("cat"), {"type": "object"}],
        [{"type": "integer"}, {"type": "number"}],
        [{"const": 1}, {"const": 1.0}],
        [{"properties": {"k": {"const": kind}}, "required": ["k"]} for kind in ("cat", "dog")],  # 5 fits both
        [{"type": "object", "properties": CAT["properties"]}, {"type": "object", "properties": DOG["properties"]}],
        [{**CLOSED, "patternProperties": {"b": {}}}, {"type": "object", "required": ["b"]}],
        [to("a"), to("cat")],
        [{"$ref": "https://example.com/x"}, {"type": "null"}],
        [{"$ref": "#cat"}, {"type": "null"}],
        [True, {"type": "null"}],
    ],
)
def test_not_certainly_apart(options: list[Any]) -> None:
    assert expressible({"oneOf": options, "$defs": DEFS}, "", [])["oneOf"] == options


def test_many_alternatives_are_told_apart_by_a_property() -> None:
    parts = {f"p{number}": {"properties": {"kind": {"const": number}}, "required": ["kind"]} for number in range(3000)}
    options = [{"type": "object", "allOf": [to(name)]} for name in parts]
    assert "anyOf" in expressible({"oneOf": options, "$defs": parts}, "", [])
    assert "oneOf" in expressible({"oneOf": [*options, options[7]], "$defs": parts}, "", [])


def test_what_would_take_too_long_is_left_as_it_is() -> None:
    options = [{"required": ["a"], "properties": {"a": {"enum": [number, None]}}} for number in range(400)]
    began = time.thread_time()
    assert "oneOf" in expressible({"oneOf": options, "type": "object"}, "", [])
    for key in ("enum", "required", "type"):
        options = [{key: [f"{number}-{one}" for one in range(20_000)]} for number in range(60)]
        assert "oneOf" in expressible({"oneOf": options}, "", [])
    assert time.thread_time() - began < 1.0


def test_references_below_another_identity_are_not_followed() -> None:
    inner = {"$id": "https://example.com/x", "oneOf": [to("cat"), {"type": "null"}], "$defs": {"cat": {}}}
    kept = expressible({"properties": {"a": inner}, "$defs": DEFS}, "", [])
    assert "oneOf" in kept["properties"]["a"]


def random_part(rng: random.Random, depth: int) -> Any:
    kinds = [
        lambda: {"type": rng.choice(["string", "integer", "number", "null", "object", ["null", "string"]])},
        lambda: {"enum": rng.sample(["a", "b", 1, 2, None, True], rng.randint(1, 2))},
        lambda: to(rng.choice(["cat", "dog", "text"])),
        lambda: {
            "type": "object",
            "properties": {name: random_part(rng, depth - 1) for name in rng.sample(["a", "kind"], rng.randint(0, 2))},
            "required": rng.sample(["a", "kind"], rng.randint(0, 2)),
            **rng.choice([{}, {"additionalProperties": False}]),
        },
        lambda: {rng.choice(["anyOf", "allOf"]): [random_part(rng, depth - 1) for _ in range(rng.randint(1, 2))]},
    ]
    return rng.choice(kinds if depth > 0 else kinds[:3])()


def test_the_same_values_fit() -> None:
    leaves: list[Any] = ["a", "b", "cat", "dog", 1, 2, 1.5, None, True, {}]
    values = leaves + [{"kind": kind, "a": a} for kind, a in itertools.product(leaves, repeat=2)]
    values += [{name: leaf} for name in ("a", "kind", "c") for leaf in leaves]
    rng, changed = random.Random(), 0
    for _ in range(80):
        schema = {"oneOf": [random_part(rng, 2) for _ in range(2)], "$defs": DEFS}
        other = expressible(schema, "", [])
        changed += other != schema
        if other != schema:
            one, two = jsonschema.Draft202012Validator(schema), jsonschema.Draft202012Validator(other)
            for value in values:
                assert one.is_valid(value) == two.is_valid(value), (schema, value)
    assert changed


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    owner: Owner | None = None


class Owner(BaseModel):
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]]


def test_unions_of_pydantic_with_a_discriminator() -> None:
    schema = Owner.model_json_schema()
    assert '"oneOf"' in json.dumps(schema)
    grammar = LLMatcher.grammar_from_json_schema(json.dumps(expressible(schema, "", [])))
    assert LLMatcher.validate_grammar(grammar) == ""


def test_whole_numbers_of_any_length_are_told_apart() -> None:
    """One that no float holds must not end in an error of ours; 2.0 is 2."""
    long = 10**400
    assert "anyOf" in expressible({"oneOf": [{"const": long}, {"const": long + 1}, {"const": 2.5}]}, "schema", [])
    assert "oneOf" in expressible({"oneOf": [{"const": 2.0}, {"const": 2}]}, "schema", [])
