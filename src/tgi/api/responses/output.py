"""The output items of a response while it grows, and the events that tell of them.

Owns where an item begins and ends, its id, and the order of events. A whole response has the same items as a stream.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from tgi.api.openai.chat_answer import logprob_of
from tgi.api.openai.chat_answer_types import Logprob
from tgi.api.responses.answer import (
    ResponseFunctionCall,
    ResponseMessage,
    ResponseOutputItem,
    ResponseOutputText,
    ResponseReasoning,
    ResponseReasoningText,
    ResponseSummaryText,
)
from tgi.api.responses.events import (
    ArgumentsDelta,
    ArgumentsDone,
    ItemAdded,
    ItemDone,
    OutputEvent,
    OutputTextDelta,
    OutputTextDone,
    PartAdded,
    PartDone,
    ReasoningTextDelta,
    ReasoningTextDone,
    SummaryPartAdded,
    SummaryPartDone,
    SummaryTextDelta,
    SummaryTextDone,
)
from tgi.serving.chat.parts import CallArguments, CallBegin, Part, Reasoning, Text

IN_PROGRESS = "in_progress"
Status = Literal["completed", "incomplete"]


class Output:
    """Takes parts and gives events; `items` is what they add up to."""

    def __init__(self, *, summary: bool) -> None:
        """`summary`: reasoning is given as a summary."""
        self.items: list[ResponseOutputItem] = []
        """Those that are complete."""
        self._summary = summary
        self._open: _OpenItem | None = None

    def feed(self, part: Part) -> list[OutputEvent]:
        """The events of a part."""
        if isinstance(part, CallBegin):
            return self._begin(partial(_Call, part))
        begun: list[OutputEvent] = []
        if not isinstance(part, CallArguments):
            kind = MESSAGE if isinstance(part, Text) else SUMMARY if self._summary else REASONING
            if not isinstance(self._open, _TextItem) or self._open.kind is not kind:
                begun = self._begin(partial(_TextItem, kind))
        assert self._open is not None
        return [*begun, *self._open.add(part)]

    def end(self, status: Status = "completed") -> list[OutputEvent]:
        """The events that end the open item."""
        if self._open is None:
            return []
        *events, item = self._open.end(status)
        assert isinstance(item, ItemDone)
        self._open = None
        self.items.append(item.item)
        return [*events, item]

    def _begin(self, make: Callable[[int], _OpenItem]) -> list[OutputEvent]:
        events = self.end()
        self._open = make(len(self.items))
        return [*events, *self._open.begin()]


class _OpenItem(ABC):
    """An item that grows."""

    def __init__(self, prefix: str, index: int) -> None:
        """prefix: of its id; index: among the items."""
        self.id = f"{prefix}_{uuid.uuid4().hex}"
        self.index = index
        self.pieces: list[str] = []

    def add(self, part: Text | Reasoning | CallArguments) -> list[OutputEvent]:
        self.pieces.append(part.text)
        return [self.delta(part.text)] if part.text else []

    @abstractmethod
    def begin(self) -> list[OutputEvent]: ...

    @abstractmethod
    def delta(self, text: str) -> OutputEvent: ...

    @abstractmethod
    def end(self, status: Status) -> list[OutputEvent]:
        """The last of them holds the item."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class _Kind:
    """Items of one text: its part, the events about them, and what makes an item of some parts."""

    prefix: str
    part: Callable[[str], Any]
    added: Callable[..., OutputEvent]
    delta: Callable[..., OutputEvent]
    text_done: Callable[..., OutputEvent]
    done: Callable[..., OutputEvent]
    item: Callable[[str, str, list[Any]], ResponseOutputItem]


MESSAGE = _Kind("msg", ResponseOutputText, PartAdded, OutputTextDelta, OutputTextDone, PartDone, ResponseMessage)
REASONING = _Kind(
    "rs", ResponseReasoningText, PartAdded, ReasoningTextDelta, ReasoningTextDone, PartDone,
    lambda id, status, parts: ResponseReasoning(id, status, [], parts),
)  # fmt: skip
SUMMARY = _Kind(
    "rs", ResponseSummaryText, SummaryPartAdded, SummaryTextDelta, SummaryTextDone, SummaryPartDone,
    lambda id, status, parts: ResponseReasoning(id, status, parts, []),
)  # fmt: skip


class _TextItem(_OpenItem):
    def __init__(self, kind: _Kind, index: int) -> None:
        super().__init__(kind.prefix, index)
        self.kind = kind
        self.logprobs: list[Logprob] = []

    def begin(self) -> list[OutputEvent]:
        kind = self.kind
        item = ItemAdded(output_index=self.index, item=kind.item(self.id, IN_PROGRESS, []))
        return [item, kind.added(item_id=self.id, output_index=self.index, part=kind.part(""))]

    def add(self, part: Text | Reasoning | CallArguments) -> list[OutputEvent]:
        events = super().add(part)
        if isinstance(part, Text) and part.tokens:
            logprobs = [logprob_of(token) for token in part.tokens]
            self.logprobs += logprobs
            for event in events:
                assert isinstance(event, OutputTextDelta)
                event.logprobs = logprobs
        return events

    def delta(self, text: str) -> OutputEvent:
        return self.kind.delta(item_id=self.id, output_index=self.index, delta=text)

    def end(self, status: Status) -> list[OutputEvent]:
        kind, part = self.kind, self.kind.part(self.text)
        done = kind.text_done(item_id=self.id, output_index=self.index, text=part.text)
        if self.logprobs:
            assert isinstance(done, OutputTextDone)
            part.logprobs = done.logprobs = self.logprobs
        return [
            done,
            kind.done(item_id=self.id, output_index=self.index, part=part),
            ItemDone(output_index=self.index, item=kind.item(self.id, status, [part])),
        ]


class _Call(_OpenItem):
    def __init__(self, begin: CallBegin, index: int) -> None:
        super().__init__("fc", index)
        self._call_id = begin.id
        self._name = begin.name

    def begin(self) -> list[OutputEvent]:
        return [ItemAdded(output_index=self.index, item=self._item(IN_PROGRESS, ""))]

    def delta(self, text: str) -> OutputEvent:
        return ArgumentsDelta(item_id=self.id, output_index=self.index, delta=text)

    def end(self, status: Status) -> list[OutputEvent]:
        text = self.text
        return [
            ArgumentsDone(item_id=self.id, output_index=self.index, name=self._name, arguments=text),
            ItemDone(output_index=self.index, item=self._item(status, text)),
        ]

    def _item(self, status: str, arguments: str) -> ResponseFunctionCall:
        return ResponseFunctionCall(self.id, status, self._call_id, self._name, arguments)
