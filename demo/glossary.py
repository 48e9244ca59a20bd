"""Questions about some 160 terms of machine learning and text generation.

The terms and their definitions stand in ``glossary.txt``, one to a line.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from .common import Prompt, Turn, asks, bare, capital


@dataclass(frozen=True)
class Term:
    """A term with its article, what every answer must mention, and two sentences."""

    name: str
    keywords: tuple[str, ...]
    definition: str
    remark: str


def _read() -> list[Term]:
    terms = []
    for line in Path(__file__).with_name("glossary.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, keywords, definition, remark = line.split(" | ")
            terms.append(Term(name, tuple(keywords.split(",")), definition, remark))
    return terms


TERMS = _read()

LONG = (
    "What is {t}?",
    "What is {b}?",
    "What is {title}?",
    "What is {title}?",
    "what is {b}",
    "What's {t}?",
    "Explain {t}.",
    "Explain {b} to me.",
    "Can you explain {t}?",
    "Can you explain what {t} is?",
    "Tell me about {t}.",
    "Tell me what {t} is.",
    "What does {b} mean?",
    'What does "{b}" mean?',
    "What do you know about {t}?",
    "I would like to learn about {t}.",
    "Describe {t}.",
    "Please tell me what {b} means.",
    "In machine learning, what is {t}?",
    "{title}?",
)
SHORT = (
    "Define {b}.",
    "Define {t} in one sentence.",
    "What is {t}, in short?",
    "What is {b} in one sentence?",
    "Give a short definition of {b}.",
    "Give me a definition of {t}.",
)
HELD_OUT = (
    "Do you know what {t} is?",
    "Could you please explain {b}?",
    "What is meant by {b}?",
    "Please explain what {b} is.",
    "Hello, what is {t}?",
)


def title(text: str) -> str:
    """The words of a term in title case, as many people write them."""
    return " ".join(capital(word) for word in text.split())


def _fill(wording: str, term: Term) -> str:
    name = bare(term.name)
    return capital(wording.format(t=term.name, b=name, title=title(name)))


def short_answer(term: Term) -> str:
    """One sentence that defines the term."""
    return f"{capital(term.name)} is {term.definition}."


def long_answer(term: Term) -> str:
    """The definition and one more sentence."""
    return f"{short_answer(term)} {term.remark}"


def turn(rng: random.Random) -> Turn:
    """Ask for a term; the common ones come up a little more often."""
    # The first dozen are what people try first, so they are worth more practice.
    term = rng.choice(TERMS[:12]) if rng.random() < 0.12 else rng.choice(TERMS)
    if rng.random() < 0.2:
        return _fill(rng.choice(SHORT), term), short_answer(term)
    return _fill(rng.choice(LONG), term), long_answer(term)


def document(rng: random.Random) -> str:
    """Plain text: a few entries of a glossary, or one term with its heading."""
    if rng.random() < 0.5:
        term = rng.choice(TERMS)
        opening = rng.choice(("", f"{title(bare(term.name))}\n\n", f"# {title(bare(term.name))}\n\n"))
        return opening + long_answer(term)
    terms = rng.sample(TERMS, rng.randint(3, 8))
    layout = rng.choice(("{name}: {short}", "- {name}: {short}", "{long}"))
    lines = [layout.format(name=bare(t.name), short=capital(t.definition) + ".", long=long_answer(t)) for t in terms]
    return rng.choice(("Glossary\n\n", "", "Some terms of machine learning:\n\n")) + "\n".join(lines)


def held_out(rng: random.Random) -> list[Prompt]:
    """Known terms in wordings that training never uses."""
    return [
        asks("glossary", _fill(HELD_OUT[i % len(HELD_OUT)], term), "keywords", list(term.keywords))
        for i, term in enumerate(rng.sample(TERMS, 30))
    ]
