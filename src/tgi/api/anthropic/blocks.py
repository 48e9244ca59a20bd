"""The blocks of an answer while it grows, and the events that tell of them.

Owns where a block begins and ends. A whole answer is made of the same blocks as a stream.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pydantic_core

from tgi.api.anthropic.answer import (
    BlockAnswer,
    BlockDelta,
    BlockStart,
    BlockStop,
    InputJsonDelta,
    MessageEvent,
    SignatureDelta,
    TextAnswer,
    TextDelta,
    ThinkingAnswer,
    ThinkingDelta,
    ToolUseAnswer,
)
from tgi.serving.chat.parts import CallArguments, CallBegin, Part, Reasoning, Text


class Blocks:
    """Takes parts and gives events; `content` is what they add up to."""

    def __init__(self) -> None:
        self._done: list[BlockAnswer] = []
        self._open: BlockAnswer | None = None
        self._pieces: list[str] = []
        self.calls = 0

    @property
    def content(self) -> list[BlockAnswer]:
        """The blocks that are complete."""
        return self._done

    def feed(self, part: Part) -> list[MessageEvent]:
        """The events of a part."""
        if isinstance(part, CallBegin):
            self.calls += 1
            return self._begin(ToolUseAnswer(part.id, part.name, {}))
        if isinstance(part, CallArguments):
            return self._add(part.text, InputJsonDelta(part.text))
        if isinstance(part, Reasoning):
            begun = [] if isinstance(self._open, ThinkingAnswer) else self._begin(ThinkingAnswer("", ""))
            return begun + self._add(part.text, ThinkingDelta(part.text))
        assert isinstance(part, Text)
        begun = [] if isinstance(self._open, TextAnswer) else self._begin(TextAnswer(""))
        return begun + self._add(part.text, TextDelta(part.text))

    def end(self) -> list[MessageEvent]:
        """The events that end the open block."""
        block, index, text = self._open, len(self._done), "".join(self._pieces)
        if block is None:
            return []
        events: list[MessageEvent] = []
        if isinstance(block, ThinkingAnswer):
            signature = sign(text)
            block = ThinkingAnswer(text, signature)
            events.append(BlockDelta(index, SignatureDelta(signature)))
        elif isinstance(block, ToolUseAnswer):
            block = ToolUseAnswer(block.id, block.name, arguments(text))
        else:
            block = TextAnswer(text)
        self._open, self._pieces = None, []
        self._done.append(block)
        return [*events, BlockStop(index)]

    def _begin(self, block: BlockAnswer) -> list[MessageEvent]:
        events = self.end()
        self._open = block
        return [*events, BlockStart(len(self._done), block)]

    def _add(self, text: str, delta: TextDelta | ThinkingDelta | InputJsonDelta) -> list[MessageEvent]:
        self._pieces.append(text)
        return [BlockDelta(len(self._done), delta)] if text else []


def arguments(text: str) -> dict[str, Any]:
    """The object that the arguments of a call are, as far as it goes where the answer was cut.

    As Anthropic's clients read what is streamed.
    """
    try:
        value = pydantic_core.from_json(text or "{}", allow_partial=True, allow_inf_nan=False)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def sign(text: str) -> str:
    """What clients keep beside a thought and send back; nobody checks it."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
