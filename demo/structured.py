"""JSON objects about a person or a product, written from a sentence or read back."""

from __future__ import annotations

import json
import random

from .common import Prompt, Turn, asks, listed, reserved
from .people import CITIES, COLOURS, HOBBIES, JOBS, NAMES, PRODUCTS

PERSON = (
    "{name} is {age} years old and lives in {city}.",
    "{name}, age {age}, from {city}.",
    "{name} lives in {city} and is {age} years old.",
)
PRODUCT = ("a {color} {product} for {price} dollars", "a {product}, color {color}, price {price}")
WRITE = (
    "Write a JSON object about this person: {text}",
    "Turn this into JSON: {text}",
    "Make a JSON object: {text}",
    "Extract the data as JSON: {text}",
    "Give me JSON for this: {text}",
)
HELD_OUT = "Please write this as a JSON object: {text}"
INVENT = (
    "Write a JSON object about a person.",
    "Give me a JSON object about a person.",
    "Make up a person as JSON.",
    "Generate a JSON object for a user.",
    "Output JSON about a person.",
)
INVENT_PRODUCT = (
    "Write a JSON object about a product.",
    "Give me a JSON object about a product.",
    "Describe a product as JSON.",
)
KEYED = ("Write a JSON object with the keys {keys}.", "Give me JSON with the keys {keys}.")


def _person(rng: random.Random) -> dict:
    while True:
        person = {"name": rng.choice(NAMES), "age": rng.randint(5, 90), "city": rng.choice(CITIES)}
        if not reserved("person", *person.values()):
            return person


def _product(rng: random.Random) -> dict:
    while True:
        item = {"product": rng.choice(PRODUCTS), "color": rng.choice(COLOURS), "price": rng.randint(1, 99)}
        if not reserved("product", *item.values()):
            return item


FIELDS = {
    "name": lambda rng: rng.choice(NAMES),
    "age": lambda rng: rng.randint(5, 90),
    "city": lambda rng: rng.choice(CITIES),
    "job": lambda rng: rng.choice(JOBS),
    "hobbies": lambda rng: rng.sample(HOBBIES, 2),
    "active": lambda rng: rng.random() < 0.5,
    "product": lambda rng: rng.choice(PRODUCTS),
    "price": lambda rng: rng.randint(1, 99),
    "color": lambda rng: rng.choice(COLOURS),
    "in_stock": lambda rng: rng.random() < 0.5,
}
PERSON_FIELDS, PRODUCT_FIELDS = list(FIELDS)[:6], list(FIELDS)[6:]


def _fields(rng: random.Random, names: list[str], fewest: int = 2) -> dict:
    chosen = rng.sample(names, rng.randint(fewest, min(4, len(names))))
    return {name: FIELDS[name](rng) for name in names if name in chosen}


def turn(rng: random.Random) -> Turn:
    """Ask for an object: from a sentence, made up, with given keys, or read a value back."""
    kind = rng.random()
    if kind < 0.5:
        if rng.random() < 0.6:
            data, text = _person(rng), rng.choice(PERSON)
            return rng.choice(WRITE).format(text=text.format(**data)), json.dumps(data)
        data = _product(rng)
        return rng.choice(WRITE[1:]).format(text=rng.choice(PRODUCT).format(**data)), json.dumps(data)
    if kind < 0.65:
        if rng.random() < 0.6:
            return rng.choice(INVENT), json.dumps({"name": rng.choice(NAMES), **_fields(rng, PERSON_FIELDS[1:], 1)})
        return rng.choice(INVENT_PRODUCT), json.dumps(
            {"product": rng.choice(PRODUCTS), **_fields(rng, PRODUCT_FIELDS[1:], 1)}
        )
    data = _fields(rng, PERSON_FIELDS if rng.random() < 0.6 else PRODUCT_FIELDS)
    if kind < 0.85:
        return rng.choice(KEYED).format(keys=listed(list(data))), json.dumps(data)
    key = rng.choice([key for key, value in data.items() if isinstance(value, (str, int))] or list(data))
    value = data[key]
    shown = value if isinstance(value, str) else json.dumps(value)
    return f"What is the {key} in this JSON? {json.dumps(data)}", f"The {key} is {shown}."


def document(rng: random.Random) -> str:
    """Plain text: one object over several lines, or a list of objects."""
    data = _fields(rng, PERSON_FIELDS if rng.random() < 0.6 else PRODUCT_FIELDS)
    if rng.random() < 0.5:
        return json.dumps(data, indent=2)
    return "\n".join(json.dumps(_person(rng)) for _ in range(rng.randint(1, 5)))


def held_out(rng: random.Random) -> list[Prompt]:
    """People and products that training never combines, in a wording it never uses."""
    prompts = []
    people = [(n, a, c) for n in NAMES for a in range(5, 91) for c in CITIES if reserved("person", n, a, c)]
    for values in rng.sample(people, 10):
        data = dict(zip(("name", "age", "city"), values, strict=True))
        prompts.append(asks("json", HELD_OUT.format(text=PERSON[0].format(**data)), "json", data))
    items = [(p, c, n) for p in PRODUCTS for c in COLOURS for n in range(1, 100) if reserved("product", p, c, n)]
    for values in rng.sample(items, 5):
        data = dict(zip(("product", "color", "price"), values, strict=True))
        prompts.append(asks("json", HELD_OUT.format(text=PRODUCT[0].format(**data)), "json", data))
    return prompts
