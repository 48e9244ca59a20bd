"""Rules of a grammar in llguidance's dialect of Lark, while they are put together.

Owns literals, which are special tokens where the vocabulary has them so, and schemas of arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tgi.serving.chat.conversation import Tool
from tgi.serving.grammars.expressible import expressible
from tgi.serving.tools.schemas import without_lookaround

EMPTY: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


class Rules:
    """A grammar that grows. Names of rules are given by whoever adds them, one prefix for each caller."""

    def __init__(self, special: Mapping[str, int] | None = None, ends: frozenset[str] = frozenset()) -> None:
        """`special`: text -> id of the tokens that are no text to the grammar; `ends`: those that end answers."""
        self.special = dict(special or {})
        self._ends = ends
        self._rules: list[str] = []
        self.left_out: list[str] = []
        """Where schemas have a format that no grammar knows."""
        texts = sorted((text for text in self.special if text), key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, texts)) + ")") if texts else None

    def add(self, name: str, expression: str, attributes: str = "") -> str:
        """A rule; gives its name."""
        self._rules.append(f"{name}{attributes}: {expression}")
        return name

    def append(self, text: str) -> None:
        """Rules that are written already."""
        self._rules.append(text.strip())

    def literal(self, text: str) -> str:
        """This text and nothing else; an end of answers at its end is left to the sampler."""
        for end in self._ends:
            text = text.removesuffix(end)
        pieces = [text] if self._split is None else self._split.split(text)
        return " ".join(
            f"<[{self.special[piece]}]>" if piece in self.special else json.dumps(piece, ensure_ascii=False)
            for piece in pieces
            if piece
        )

    def json(self, schema: Any, *, strict: bool = False) -> str:
        """JSON that fits a schema, spaced as templates write it; `strict`: nothing of it may be left open."""
        options: dict[str, Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        if not strict:
            options["lenient"] = True
        plain = {} if schema is True else dict(schema) if isinstance(schema, Mapping) else {"not": {}}
        plain = expressible(plain, "tools", self.left_out)
        if not strict:
            plain = without_lookaround(plain)
        return "%json " + json.dumps({**plain, "x-guidance": options}, ensure_ascii=False)

    def arguments(self, tool: Tool) -> str:
        """The object of a tool's arguments: those that are named and no other, unless the schema speaks of others."""
        schema = dict(tool.parameters or EMPTY)
        if schema.get("properties"):
            schema.setdefault("additionalProperties", False)
        return self.json(schema, strict=tool.strict)

    def text(self, start: str) -> str:
        """The whole grammar, whose answer is `start`."""
        return "\n".join([f"start: {start}", *self._rules]) + "\n"


def any_of(expressions: list[str]) -> str:
    return expressions[0] if len(expressions) == 1 else "(" + " | ".join(expressions) + ")"


def sequence(*expressions: str) -> str:
    return " ".join(expression for expression in expressions if expression)


def repeated(call: str, separator: str, parallel: bool) -> str:
    """One call, or several."""
    return f"{call} ({sequence(separator, call)})*" if parallel else call


def listed(pairs: list[tuple[str, bool]], rules: Rules, prefix: str, separator: str) -> str:
    """Expressions in their order with a separator between them, each with whether it must be there."""
    after = first = '""'
    for place, (pair, must) in reversed(list(enumerate(pairs))):
        begins, follows = f"{pair} {after}", f"{json.dumps(separator)} {pair} {after}"
        first = rules.add(f"first_{prefix}_{place}", begins if must else f"{begins} | {first}")
        after = rules.add(f"after_{prefix}_{place}", follows if must else f"{follows} | {after}")
    return first if pairs else ""
