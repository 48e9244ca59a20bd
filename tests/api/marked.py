"""A format of answers for tests: `<think>...</think>` is reasoning, `{name|arguments}` a call, the rest text.

The APIs that agents speak are tested on what they make of parts, whatever format the parts came from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tgi.api.server import chat as server_chat
from tgi.serving.chat.parts import CallArguments, CallBegin, Part, Reasoning, Text
from tgi.serving.chat.plan import ChatPlan, plan_chat


class MarkedReader:
    """Reads a character at a time: `^` turns reasoning on and off, `{` begins a call, `|` its arguments, `}` ends it.

    Arguments are written with `(` and `)` for braces.
    """

    def __init__(self) -> None:
        self._state = "text"
        self._name = ""
        self._calls = -1

    @property
    def reasons(self) -> bool:
        return self._state == "reasoning"

    def feed(self, text: str) -> list[Part]:
        return [part for character in text for part in self._step(character)]

    def end(self) -> list[Part]:
        return []

    def _step(self, character: str) -> list[Part]:
        if self._state == "name":
            if character == "|":
                self._state = "arguments"
                self._calls += 1
                return [CallBegin(self._calls, f"call_{self._calls}", self._name)]
            self._name += character
            return []
        if self._state == "arguments":
            if character == "}":
                self._state = "text"
                return []
            return [CallArguments(self._calls, {"(": "{", ")": "}"}.get(character, character))]
        if character == "{":
            self._state, self._name = "name", ""
            return []
        if character == "^":
            self._state = "text" if self._state == "reasoning" else "reasoning"
            return []
        return [Reasoning(character) if self._state == "reasoning" else Text(character)]


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Answers of all conversations are read by `MarkedReader`; tools do not change the prompt."""

    async def planned(service: Any, conversation: Any, *more: Any, **named: Any) -> ChatPlan:
        plain = replace(conversation, tools=(), choice="auto", grammar=None)
        return replace(await plan_chat(service, plain, *more, **named), reader=MarkedReader)

    monkeypatch.setattr(server_chat, "plan_chat", planned)
    return planned
