"""Sums, differences, small products and comparisons of numbers."""

from __future__ import annotations

import random

from .common import Prompt, Turn, asks, reserved, weighted

SYMBOLS = {"plus": "+", "minus": "-", "times": "*"}
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
RESULTS = {"plus": lambda a, b: a + b, "minus": lambda a, b: a - b, "times": lambda a, b: a * b}

WORDED = ("What is {a} {op} {b}?", "What's {a} {op} {b}?", "Calculate {a} {op} {b}.", "How much is {a} {op} {b}?")
SIGNED = (
    "What is {a} {s} {b}?",
    "{a} {s} {b} =",
    "{a}{s}{b}=",
    "Compute {a} {s} {b}.",
    "{a} {s} {b} = ?",
    "{a} {s} {b}",
)
SPECIAL = {
    "plus": ("Add {a} and {b}.", "What is the sum of {a} and {b}?"),
    "minus": ("Subtract {b} from {a}.",),
    "times": ("Multiply {a} by {b}.", "What is the product of {a} and {b}?"),
}
COMPARE = ("Which is larger, {a} or {b}?", "Which number is bigger: {a} or {b}?")
COMPARE_DOWN = ("Which is smaller, {a} or {b}?",)


def _operands(rng: random.Random) -> tuple[int, str, int]:
    """Two numbers and an operation, small ones most often."""
    op = weighted(rng, {"plus": 6, "minus": 3, "times": 2})
    top = weighted(rng, {10: 5, 20: 3, 50: 2, 99: 2}) if op != "times" else 10
    a, b = rng.randint(0, top), rng.randint(0, top)
    # Differences stay at zero or above, so no answer needs a sign.
    return (max(a, b), op, min(a, b)) if op == "minus" else (a, op, b)


def is_reserved(a: int, op: str, b: int) -> bool:
    """Whether a task is held out; the order of the numbers makes no difference.

    Numbers up to four stay in training: with so few of them nothing could be
    learned from the others.
    """
    return min(a, b) > 4 and reserved(op, min(a, b), max(a, b))


def answer(a: int, op: str, b: int) -> str:
    """The result as a sentence."""
    return f"{a} {op} {b} is {RESULTS[op](a, b)}."


def turn(rng: random.Random) -> Turn:
    """One task of arithmetic and its result."""
    if rng.random() < 0.12:
        return _comparison(rng)
    a, op, b = _operands(rng)
    while is_reserved(a, op, b):
        a, op, b = _operands(rng)
    wording = rng.choice(rng.choice((WORDED, WORDED, SIGNED, SPECIAL[op])))
    names = max(a, b) <= 10 and rng.random() < 0.08
    shown = (NAMES[a], NAMES[b]) if names else (a, b)
    return wording.format(a=shown[0], b=shown[1], op=op, s=SYMBOLS[op]), answer(a, op, b)


def _comparison(rng: random.Random) -> Turn:
    a, b = rng.sample(range(rng.choice((10, 30, 100))), 2)
    while reserved("compare", a, b):
        a, b = rng.sample(range(100), 2)
    if rng.random() < 0.7:
        return rng.choice(COMPARE).format(a=a, b=b), f"{max(a, b)} is larger than {min(a, b)}."
    return rng.choice(COMPARE_DOWN).format(a=a, b=b), f"{min(a, b)} is smaller than {max(a, b)}."


def document(rng: random.Random) -> str:
    """Plain text: a page of solved tasks."""
    lines = []
    for _ in range(rng.randint(3, 14)):
        a, op, b = _operands(rng)
        if not is_reserved(a, op, b):
            lines.append(f"{a} {SYMBOLS[op]} {b} = {RESULTS[op](a, b)}")
    return "\n".join(lines)


def held_out(rng: random.Random) -> list[Prompt]:
    """Tasks whose numbers never meet in training."""
    tasks: dict[tuple, None] = {}
    while len(tasks) < 25:
        a, op, b = _operands(rng)
        if is_reserved(a, op, b):
            tasks[a, op, b] = None
    prompts = [asks("sums", WORDED[0].format(a=a, op=op, b=b), "exact", answer(a, op, b)) for a, op, b in tasks]
    pairs = [(a, b) for a in range(100) for b in range(100) if a != b and reserved("compare", a, b)]
    for a, b in rng.sample(pairs, 5):
        prompts.append(asks("sums", COMPARE[0].format(a=a, b=b), "exact", f"{max(a, b)} is larger than {min(a, b)}."))
    return prompts
