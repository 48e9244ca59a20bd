"""What a format of calls is: a description that both reads calls and writes the grammar of answers that hold them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tgi.serving.chat.conversation import Tool
from tgi.serving.chat.scanner import Scanner, Script
from tgi.serving.tools.calls import Calls
from tgi.serving.tools.rules import Rules


class Shape(Protocol):
    """How calls are written."""

    @property
    def markers(self) -> Sequence[str]:
        """Literals that are tokens of their own in many vocabularies; a reader must see them."""
        ...

    @property
    def trigger(self) -> str | None:
        """What begins a call and nothing else; None: only its place does."""
        ...

    @property
    def opening(self) -> str:
        """Where only its place begins a call: the characters that an answer with calls begins with. Empty: any."""
        ...

    @property
    def heading(self) -> str:
        """What is written before a text that is an answer."""
        ...

    def read(self, scan: Scanner, calls: Calls) -> Script:
        """The script of an answer: text with calls in it."""
        ...

    def rule(self, tools: Sequence[Tool], rules: Rules, parallel: bool) -> str:
        """The expression of an answer that is nothing but calls; `rules` takes the rules it needs."""
        ...


@dataclass(frozen=True, slots=True)
class Format:
    """A family's format."""

    name: str
    """As `--tool-call-parser` has it."""
    shape: Shape
    knows: Callable[[str], bool] = lambda _: False
    """Whether a chat template with this source is the family's."""
    new_id: Callable[[int], str] | None = None
    """The id of the answer's call number 0, 1, ...; None: as OpenAI's."""
    place: Callable[[list[dict[str, Any]], Sequence[Tool]], list[dict[str, Any]]] | None = None
    """Puts tools into the messages, for templates that read them there; None: templates have a variable `tools`."""
    places_if: Callable[[str], bool] = lambda _: False
    """Whether a template with this source reads tools from the messages."""
    known_id: Callable[[str], str] | None = None
    """An id of an earlier call as the template takes it; None: as it is."""


def mentions(*needles: str) -> Callable[[str], bool]:
    """Whether a source holds all of these."""
    return lambda source: all(needle in source for needle in needles)
