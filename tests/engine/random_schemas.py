"""Random JSON schemas of the keywords that llguidance keeps, for tests and `benchmarks.structured`."""

from __future__ import annotations

import random
from typing import Any

WORDS = ["id", "name", "age", "city", "email", "tags", "items", "price", "count", "note", "score", "unit"]


def random_schema(rng: random.Random, depth: int = 3) -> dict[str, Any]:
    """An object with properties of all kinds, nested up to `depth` levels."""
    words = rng.sample(WORDS, rng.randint(1, 4))
    properties = {f"{word}{rng.randrange(100)}": _value(rng, depth) for word in words}
    names = list(properties)
    required = names if rng.random() < 0.5 else rng.sample(names, rng.randint(0, len(names)))
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    if rng.random() < 0.8:
        schema["additionalProperties"] = False
    return schema


def _value(rng: random.Random, depth: int) -> Any:
    scalars = [_string, _number, _enum, lambda rng: {"type": rng.choice(["boolean", "null"])}]
    if depth <= 0:
        return rng.choice(scalars)(rng)
    kind = rng.randrange(7)
    if kind == 0:
        return random_schema(rng, depth - 1)
    if kind == 1:
        low = rng.randint(0, 2)
        return {"type": "array", "items": _value(rng, depth - 1), "minItems": low, "maxItems": low + rng.randint(0, 2)}
    if kind == 2:
        return {"anyOf": [_value(rng, depth - 1), {"type": "null"}]}
    return rng.choice(scalars)(rng)


def _string(rng: random.Random) -> dict[str, Any]:
    if rng.random() < 0.3:
        return {"type": "string", "pattern": rng.choice(["^[a-z]{1,6}$", "^[A-Z]{2}-[0-9]{3}$", "^(x|yy)+z?$"])}
    if rng.random() < 0.3:
        return {"type": "string", "format": rng.choice(["date", "time", "date-time", "uuid", "ipv4"])}
    low = rng.randint(0, 3)
    return {"type": "string", "minLength": low, "maxLength": low + rng.randint(0, 9)}


def _number(rng: random.Random) -> dict[str, Any]:
    low = rng.randint(-50, 50)
    if rng.random() < 0.5:
        return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 1000)}
    return {"type": "number", "exclusiveMinimum": low, "maximum": low + rng.randint(1, 9)}


def _enum(rng: random.Random) -> dict[str, Any]:
    values: list[Any] = ["red", "green", "a longer text", 'with "quotes"', 1, 2.5, None, True, ["x"], {"k": 1}]
    return {"enum": rng.sample(values, rng.randint(1, 4))}
