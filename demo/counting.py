"""Counting up and down, even and odd numbers, and what comes next."""

from __future__ import annotations

import random

from .common import Prompt, Turn, asks, reserved

TO = (
    "Count to {b}.",
    "Count to {b}",
    "Count up to {b}.",
    "Count from 1 to {b}.",
    "count to {b}",
    "Can you count to {b}?",
    "Please count to {b}.",
)
RANGE = (
    "Count from {a} to {b}.",
    "Count from {a} to {b}",
    "Count up from {a} to {b}.",
    "List the numbers from {a} to {b}.",
)
DOWN = (
    "Count down from {a}.",
    "Count down from {a} to {b}.",
    "Count backwards from {a} to {b}.",
    "Count from {a} down to {b}.",
)
STEPS = ("Count to {b} in steps of {s}.", "Count in steps of {s} up to {b}.")
NEXT = ("What comes after {a}?", "Which number comes after {a}?", "What number comes next: {row}?")
BEFORE = ("What comes before {a}?", "Which number comes before {a}?")


def row(a: int, b: int, step: int = 1) -> str:
    """The numbers from a to b, both included."""
    return ", ".join(map(str, range(a, b + (1 if step > 0 else -1), step)))


def _up(rng: random.Random) -> Turn:
    if rng.random() < 0.55:
        b = rng.choice((10, 5, 20, rng.randint(2, 50), rng.randint(2, 50)))
        return rng.choice(TO).format(b=b), row(1, b) + "."
    a, length = rng.randint(0, 45), rng.randint(2, 20)
    b = min(a + length, 60)
    if reserved("up", a, b):
        return _up(rng)
    return rng.choice(RANGE).format(a=a, b=b), row(a, b) + "."


def _down(rng: random.Random) -> Turn:
    wording = rng.choice(DOWN)
    if "{b}" not in wording:
        a = rng.choice((10, 5, rng.randint(2, 30)))
        return wording.format(a=a), row(a, 1, -1) + "."
    a = rng.randint(3, 50)
    b = rng.randint(max(0, a - 20), a - 2)
    return _down(rng) if reserved("down", a, b) else (wording.format(a=a, b=b), row(a, b, -1) + ".")


def _neighbour(rng: random.Random) -> Turn:
    a = rng.randint(1, 60)
    if rng.random() < 0.7:
        start = max(0, a - rng.randint(2, 4))
        return rng.choice(NEXT).format(a=a, row=row(start, a)), f"{a + 1} comes after {a}."
    return rng.choice(BEFORE).format(a=a), f"{a - 1} comes before {a}."


def turn(rng: random.Random) -> Turn:
    """One counting task."""
    kind = rng.random()
    if kind < 0.5:
        return _up(rng)
    if kind < 0.72:
        return _down(rng)
    if kind < 0.86:
        return _neighbour(rng)
    step = rng.choice((2, 5, 10))
    if rng.random() < 0.4:
        first, name = rng.choice(((2, "even"), (1, "odd")))
        count = rng.randint(3, 12)
        return f"List the first {count} {name} numbers.", row(first, first + 2 * (count - 1), 2) + "."
    b = step * rng.randint(3, 10)
    return rng.choice(STEPS).format(s=step, b=b), row(step, b, step) + "."


def document(rng: random.Random) -> str:
    """Plain text: a row of numbers, or numbered lines."""
    a = rng.randint(0, 10)
    b = a + rng.randint(6, 30)
    return row(a, b) if rng.random() < 0.6 else "\n".join(map(str, range(a, b + 1)))


def held_out(rng: random.Random) -> list[Prompt]:
    """Ranges that training never asks for."""
    up = [(a, b) for a in range(46) for b in range(a + 2, a + 16) if reserved("up", a, b)]
    down = [(a, b) for a in range(5, 50) for b in range(max(0, a - 12), a - 2) if reserved("down", a, b)]
    prompts = [asks("counting", RANGE[0].format(a=a, b=b), "exact", row(a, b) + ".") for a, b in rng.sample(up, 10)]
    for a, b in rng.sample(down, 7):
        prompts.append(asks("counting", DOWN[1].format(a=a, b=b), "exact", row(a, b, -1) + "."))
    prompts += [asks("counting", f"Could you count up to {b}?", "exact", row(1, b) + ".") for b in (12, 27, 40)]
    return prompts
