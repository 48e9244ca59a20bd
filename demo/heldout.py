"""The 200 prompts that measure the model, and the rule that keeps them out of training."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from functools import cache
from pathlib import Path

from . import arithmetic, counting, dialogue, facts, glossary, stories, structured, tool_calls, words, yesno
from .common import Prompt, reserved, with_article
from .people import ANIMALS, NAMES

QUOTA = {
    "glossary": 28,
    "sums": 26,
    "counting": 17,
    "words": 22,
    "facts": 28,
    "yes or no": 14,
    "stories": 10,
    "json": 14,
    "tool calls": 14,
    "dialogue": 14,
    "raw text": 13,
}
MODULES = (glossary, arithmetic, counting, words, facts, yesno, stories, structured, tool_calls, dialogue)


def _raw(rng: random.Random) -> list[Prompt]:
    """Plain text without a chat: a question to answer and a story to go on with."""
    prompts = []
    for country in rng.sample(list(facts.CAPITALS), 6):
        question = f"Question: Can you tell me what the capital of {country} is?\nAnswer:"
        prompts.append(Prompt("raw text", "keywords", [facts.CAPITALS[country]], raw=question))
    starts = [(o, t, a, n) for o in stories.OPENINGS for t in stories.TRAITS for a in ANIMALS for n in NAMES]
    for opening, trait, animal, name in rng.sample([start for start in starts if reserved("raw", *start)], 7):
        text = f"{opening} {with_article(trait)} {animal} named {name}."
        prompts.append(Prompt("raw text", "keywords", [name, "In the end"], raw=text))
    return prompts


@cache
def prompts() -> tuple[Prompt, ...]:
    """All held-out prompts, always the same ones."""
    rng = random.Random(2024)
    made = [prompt for module in MODULES for prompt in module.held_out(rng)] + _raw(rng)
    # Two draws may hit the same question; only the first of them counts.
    found = list({prompt.raw or str(prompt.messages): prompt for prompt in reversed(made)}.values())[::-1]
    chosen = []
    for category, count in QUOTA.items():
        pool = [prompt for prompt in found if prompt.category == category]
        # Evenly spaced picks keep every sort of task in a category.
        chosen += [pool[i * len(pool) // count] for i in range(count)]
    return tuple(chosen)


def normal(text: str) -> str:
    """The text without the differences that do not make a new question."""
    return " ".join(text.lower().split()).rstrip(".?!")


@cache
def _questions() -> tuple[frozenset[str], tuple[str, ...]]:
    chats = frozenset(normal(p.messages[-1]["content"]) for p in prompts() if p.messages)
    return chats, tuple(p.raw for p in prompts() if p.raw)


def is_held_out(text: str) -> bool:
    """True if a question or a plain text would show a held-out prompt to the model."""
    chats, raws = _questions()
    return normal(text) in chats or any(raw in text for raw in raws)


def write(path: Path) -> None:
    """Store the prompts, one JSON object to a line."""
    lines = []
    for prompt in prompts():
        lines.append(json.dumps({key: value for key, value in asdict(prompt).items() if value not in ((), "")}))
    path.write_text("\n".join(lines) + "\n")


def read(path: Path) -> list[Prompt]:
    """Load prompts that ``write`` has stored."""
    loaded = []
    for line in path.read_text().splitlines():
        fields = json.loads(line)
        for key in ("messages", "tools"):
            fields[key] = tuple(fields.get(key, ()))
        loaded.append(Prompt(**fields))
    return loaded
