"""Questions whose answer begins with yes or no."""

from __future__ import annotations

import random

from .common import Prompt, Turn, asks, capital, reserved, with_article, word_list
from .facts import CAPITALS, COLOURS

KINDS = {
    "animal": word_list("dog cat horse lion tiger bear wolf frog duck cow sheep goat mouse snake spider"),
    "fruit": ["apple", "banana", "lemon", "grape", "plum", "pear", "peach", "melon", "cherry", "orange"],
    "vegetable": ["carrot", "potato", "onion", "bean", "cabbage"],
    "tool": ["hammer", "saw", "knife", "spade", "drill"],
    "piece of furniture": ["chair", "table", "bed", "desk", "sofa"],
    "vehicle": ["car", "bus", "train", "truck", "bike", "ship", "plane"],
}
THINGS = {thing: kind for kind, things in KINDS.items() for thing in things}
CAN = {
    "fly": (["bird", "bee", "plane", "duck", "swan"], ["dog", "cat", "horse", "stone", "chair", "car"]),
    "swim": (["fish", "duck", "frog", "swan", "dog"], ["stone", "chair", "car", "book", "tree"]),
    "speak": (["teacher", "doctor", "child", "farmer"], ["stone", "chair", "tree", "lamp", "book"]),
}


def _is_kind(thing: str, kind: str) -> str:
    if THINGS[thing] == kind:
        return f"Yes, {with_article(thing)} is {with_article(kind)}."
    return f"No, {with_article(thing)} is {with_article(THINGS[thing])}."


def _kind(rng: random.Random) -> Turn:
    while True:
        thing = rng.choice(list(THINGS))
        kind = THINGS[thing] if rng.random() < 0.5 else rng.choice(list(KINDS))
        if not reserved("kind", thing, kind):
            wording = rng.choice(("Is {t} {k}?", "Is {t} {k}?", "Is {t} {k}, yes or no?", "Tell me, is {t} {k}?"))
            return wording.format(t=with_article(thing), k=with_article(kind)), _is_kind(thing, kind)


def _number(rng: random.Random) -> Turn:
    while True:
        n, m = rng.randint(0, 60), rng.randint(0, 60)
        if n != m and not reserved("larger", n, m):
            break
    if rng.random() < 0.5:
        right = rng.choice(("even", "odd"))
        truth = "even" if n % 2 == 0 else "odd"
        return f"Is {n} {right}?", f"{'Yes' if right == truth else 'No'}, {n} is {truth}."
    return f"Is {n} {(word := rng.choice(('larger', 'smaller')))} than {m}?", _larger(n, m, word)


def _larger(n: int, m: int, word: str) -> str:
    truth = "larger" if n > m else "smaller"
    return f"{'Yes' if word == truth else 'No'}, {n} is {truth} than {m}."


def _capital(rng: random.Random) -> Turn:
    while True:
        country = rng.choice(list(CAPITALS))
        city = CAPITALS[country] if rng.random() < 0.5 else rng.choice(list(CAPITALS.values()))
        if not reserved("iscapital", country, city):
            return f"Is {city} the capital of {country}?", _is_capital(country, city)


def _is_capital(country: str, city: str) -> str:
    right = CAPITALS[country]
    return f"{'Yes' if right == city else 'No'}, {right} is the capital of {country}."


def _colour(rng: random.Random) -> Turn:
    thing = rng.choice(list(COLOURS))
    colour = COLOURS[thing] if rng.random() < 0.5 else rng.choice(("blue", "red", "green", "black", "white", "yellow"))
    return f"Is {thing} {colour}?", f"{'Yes' if COLOURS[thing] == colour else 'No'}, {thing} is {COLOURS[thing]}."


def _ability(rng: random.Random) -> Turn:
    verb, (able, unable) = rng.choice(list(CAN.items()))
    if rng.random() < 0.5:
        thing = with_article(rng.choice(able))
        return f"Can {thing} {verb}?", f"Yes, {thing} can {verb}."
    thing = with_article(rng.choice(unable))
    return f"Can {thing} {verb}?", f"No, {thing} cannot {verb}."


def turn(rng: random.Random) -> Turn:
    """One yes/no question."""
    return rng.choice((_kind, _kind, _number, _capital, _colour, _ability))(rng)


def document(rng: random.Random) -> str:
    """Plain text: statements about what things are."""
    things = rng.sample(list(THINGS), rng.randint(2, 6))
    return " ".join(f"{capital(with_article(thing))} is {with_article(THINGS[thing])}." for thing in things)


def held_out(rng: random.Random) -> list[Prompt]:
    """Pairs of things that training never asks about together."""
    kinds = [(t, k) for t in THINGS for k in KINDS if reserved("kind", t, k)]
    capitals = [(c, city) for c in CAPITALS for city in CAPITALS.values() if reserved("iscapital", c, city)]
    true_capitals = [(c, city) for c, city in capitals if CAPITALS[c] == city]
    numbers = [(n, m) for n in range(61) for m in range(61) if n != m and reserved("larger", n, m)]
    prompts = []
    for thing, kind in rng.sample(kinds, 7):
        prompts.append(
            asks("yes or no", f"Is {with_article(thing)} {with_article(kind)}?", "exact", _is_kind(thing, kind))
        )
    for country, city in rng.sample(true_capitals, min(2, len(true_capitals))) + rng.sample(capitals, 2):
        prompts.append(asks("yes or no", f"Is {city} the capital of {country}?", "exact", _is_capital(country, city)))
    for n, m in rng.sample(numbers, 15 - len(prompts)):
        prompts.append(asks("yes or no", f"Is {n} larger than {m}?", "exact", _larger(n, m, "larger")))
    return prompts
