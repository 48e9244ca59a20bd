"""The small shared pieces of the corpus: the example type and the held-out rule."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

Turn = tuple[str, str]
"""One question of a user and the answer that the model is to give."""


@dataclass(frozen=True)
class Example:
    """One training document: a chat (with tools or without) or plain text."""

    messages: tuple[dict, ...] = ()
    tools: tuple[dict, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Prompt:
    """One held-out prompt and the check that its answer must pass.

    ``check`` is ``exact``, ``keywords`` (all must occur), ``json`` (an object that
    holds the expected pairs) or ``tool`` (a call with the expected name and
    arguments).
    """

    category: str
    check: str
    expected: object
    messages: tuple[dict, ...] = ()
    tools: tuple[dict, ...] = ()
    raw: str = ""


def reserved(*key: object) -> bool:
    """True for the tenth of all keys that training never sees.

    A checksum decides, so every seed holds the same instances back and the
    held-out prompts stay held out whichever seed made the weights.
    """
    return zlib.crc32("|".join(map(str, key)).encode()) % 10 == 0


def word_list(text: str) -> list[str]:
    """The words of a block of text; long lists read better this way than one by one."""
    return text.split()


def asks(category: str, question: str, check: str, expected: object) -> Prompt:
    """A held-out prompt that consists of one user message."""
    return Prompt(category, check, expected, ({"role": "user", "content": question},))


def capital(text: str) -> str:
    """The text with its first letter in upper case and the rest untouched."""
    return text[:1].upper() + text[1:]


def bare(term: str) -> str:
    """A noun without its article: "a token" becomes "token"."""
    for article in ("a ", "an ", "the "):
        if term.startswith(article):
            return term[len(article) :]
    return term


def with_article(noun: str) -> str:
    """The noun after "a" or "an", chosen by its first letter."""
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun


def listed(words: list[str]) -> str:
    """Words joined the way a sentence lists them: "a, b and c"."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def weighted(rng: random.Random, table: dict) -> object:
    """A key of the table, drawn in proportion to its value."""
    return rng.choices(list(table), weights=list(table.values()))[0]


def made_up(rng: random.Random, longest: int = 7) -> str:
    """A word that can be spoken but means nothing.

    With made-up words the model must learn the letters of every token and how to
    copy, which a short list of real words would not teach it.
    """
    syllables = rng.randint(1, 3)
    word = "".join(
        rng.choice(
            ("b", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "tr", "bl", "ch")
        )
        + rng.choice("aeiou")
        + rng.choice(("", "", "n", "r", "l", "s", "t", "m", "ck"))
        for _ in range(syllables)
    )
    return word[:longest] if len(word) >= 3 else word + "ne"
