"""What the text of an answer is made of: plain text, reasoning, and calls of tools.

Owns the vocabulary between a model's format of calls (`serving.tools`, `serving.reasoning`) and the dialects that
show an answer (`api`). Knows no format.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from tgi.serving.types import TextToken


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer itself."""

    text: str
    tokens: tuple[TextToken, ...] = ()
    """Those it came with, where somebody wants their log-probabilities."""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A call begins; its arguments follow, in at least one piece unless the answer is cut."""

    index: int
    """0, 1, 2, ... within the answer."""
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of a call's arguments, which together are the JSON text of an object."""

    index: int
    text: str


Part: TypeAlias = Text | Reasoning | CallBegin | CallArguments


@dataclass(frozen=True, slots=True)
class Call:
    """A call as a whole."""

    id: str
    name: str
    arguments: str
    """JSON text; the beginning of one where the answer was cut."""


@dataclass(frozen=True, slots=True)
class Message:
    """All parts of an answer put together."""

    text: str | None
    """None beside calls alone."""
    reasoning: str
    calls: list[Call]


def put_together(parts: Iterable[Part]) -> Message:
    text, thoughts = [], []
    calls: list[tuple[CallBegin, list[str]]] = []
    for part in parts:
        match part:
            case Text(piece):
                text.append(piece)
            case Reasoning(piece):
                thoughts.append(piece)
            case CallBegin():
                calls.append((part, []))
            case CallArguments(index, piece):
                calls[index][1].append(piece)
    content = "".join(text)
    whole = [Call(begin.id, begin.name, "".join(pieces)) for begin, pieces in calls]
    return Message(None if calls and not content else content, "".join(thoughts), whole)


class Reader(Protocol):
    """Makes parts of the text of one sample; what they add up to does not depend on how the text was cut."""

    def feed(self, text: str) -> list[Part]:
        """Take the next piece of text and give what is certain."""
        ...

    def end(self) -> list[Part]:
        """The text has ended: give what was held back."""
        ...

    @property
    def reasons(self) -> bool:
        """Whether what comes next belongs to the reasoning, by what has come."""
        ...


class PlainReader:
    """All is text."""

    reasons = False

    def feed(self, text: str) -> list[Part]:
        return [Text(text)] if text else []

    def end(self) -> list[Part]:
        return []
