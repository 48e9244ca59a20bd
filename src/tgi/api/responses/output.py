"""The output items of a response while it grows, and the events that tell of them.

Owns where an item begins and ends, its id, and the order of events. A whole response has the same items as a stream.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial
from typing import Literal

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
            return self._begin(partial(_Call, begin=part))
        begun: list[OutputEvent] = []
        if isinstance(part, Reasoning):
            kind = _Summary if self._summary else _Reasoning
            begun = [] if isinstance(self._open, kind) else self._begin(kind)
        elif isinstance(part, Text):
            begun = [] if isinstance(self._open, _Message) else self._begin(_Message)
        assert self._open is not None and isinstance(part, (Reasoning, Text, CallArguments))
        return [*begun, *self._open.add(part.text)]

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


class _OpenItem:
    """An item that grows."""

    prefix = ""

    def __init__(self, index: int) -> None:
        self.id = f"{self.prefix}_{uuid.uuid4().hex}"
        self.index = index
        self.pieces: list[str] = []

    def begin(self) -> list[OutputEvent]:
        raise NotImplementedError

    def add(self, text: str) -> list[OutputEvent]:
        self.pieces.append(text)
        return [self.delta(text)] if text else []

    def delta(self, text: str) -> OutputEvent:
        raise NotImplementedError

    def end(self, status: Status) -> list[OutputEvent]:
        """The last of them holds the item."""
        raise NotImplementedError

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class _Message(_OpenItem):
    prefix = "msg"

    def begin(self) -> list[OutputEvent]:
        part = PartAdded(item_id=self.id, output_index=self.index, part=ResponseOutputText(""))
        return [ItemAdded(output_index=self.index, item=ResponseMessage(self.id, IN_PROGRESS, [])), part]

    def delta(self, text: str) -> OutputEvent:
        return OutputTextDelta(item_id=self.id, output_index=self.index, delta=text)

    def end(self, status: Status) -> list[OutputEvent]:
        part = ResponseOutputText(self.text)
        return [
            OutputTextDone(item_id=self.id, output_index=self.index, text=part.text),
            PartDone(item_id=self.id, output_index=self.index, part=part),
            ItemDone(output_index=self.index, item=ResponseMessage(self.id, status, [part])),
        ]


class _Reasoning(_OpenItem):
    prefix = "rs"

    def begin(self) -> list[OutputEvent]:
        part = PartAdded(item_id=self.id, output_index=self.index, part=ResponseReasoningText(""))
        return [ItemAdded(output_index=self.index, item=ResponseReasoning(self.id, IN_PROGRESS, [], [])), part]

    def delta(self, text: str) -> OutputEvent:
        return ReasoningTextDelta(item_id=self.id, output_index=self.index, delta=text)

    def end(self, status: Status) -> list[OutputEvent]:
        part = ResponseReasoningText(self.text)
        return [
            ReasoningTextDone(item_id=self.id, output_index=self.index, text=part.text),
            PartDone(item_id=self.id, output_index=self.index, part=part),
            ItemDone(output_index=self.index, item=ResponseReasoning(self.id, status, [], [part])),
        ]


class _Summary(_OpenItem):
    prefix = "rs"

    def begin(self) -> list[OutputEvent]:
        part = SummaryPartAdded(item_id=self.id, output_index=self.index, part=ResponseSummaryText(""))
        return [ItemAdded(output_index=self.index, item=ResponseReasoning(self.id, IN_PROGRESS, [], [])), part]

    def delta(self, text: str) -> OutputEvent:
        return SummaryTextDelta(item_id=self.id, output_index=self.index, delta=text)

    def end(self, status: Status) -> list[OutputEvent]:
        part = ResponseSummaryText(self.text)
        return [
            SummaryTextDone(item_id=self.id, output_index=self.index, text=part.text),
            SummaryPartDone(item_id=self.id, output_index=self.index, part=part),
            ItemDone(output_index=self.index, item=ResponseReasoning(self.id, status, [part], [])),
        ]


class _Call(_OpenItem):
    prefix = "fc"

    def __init__(self, index: int, begin: CallBegin) -> None:
        super().__init__(index)
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
