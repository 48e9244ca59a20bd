"""Events of a stream of `/v1/responses`.

Owns their names and fields. Their order is `output`'s. `sequence_number` is filled in when an event is written.
"""

from __future__ import annotations

import msgspec

from tgi.api.openai.chat_answer_types import Logprob
from tgi.api.responses.answer import (
    ResponseObject,
    ResponseOutputItem,
    ResponseOutputText,
    ResponseReasoningText,
    ResponseSummaryText,
)


class ResponseEventBase(msgspec.Struct, tag_field="type", kw_only=True):
    """What all events have."""

    sequence_number: int = 0


class ResponseCreated(ResponseEventBase, tag="response.created", kw_only=True):
    """The first event."""

    response: ResponseObject


class ResponseInProgress(ResponseEventBase, tag="response.in_progress", kw_only=True):
    """The second one."""

    response: ResponseObject


class ResponseCompleted(ResponseEventBase, tag="response.completed", kw_only=True):
    """The last event of an answer that came to its end."""

    response: ResponseObject


class ResponseIncomplete(ResponseEventBase, tag="response.incomplete", kw_only=True):
    """The last event of an answer that was cut."""

    response: ResponseObject


class ResponseFailed(ResponseEventBase, tag="response.failed", kw_only=True):
    """The last event where something went wrong."""

    response: ResponseObject


class ItemAdded(ResponseEventBase, tag="response.output_item.added", kw_only=True):
    """An item begins; it is empty."""

    output_index: int
    item: ResponseOutputItem


class ItemDone(ResponseEventBase, tag="response.output_item.done", kw_only=True):
    """An item is complete."""

    output_index: int
    item: ResponseOutputItem


class InItem(ResponseEventBase, kw_only=True):
    """Something about an item."""

    item_id: str
    output_index: int


class PartAdded(InItem, tag="response.content_part.added", kw_only=True):
    """A part of an item begins."""

    content_index: int = 0
    part: ResponseOutputText | ResponseReasoningText


class PartDone(InItem, tag="response.content_part.done", kw_only=True):
    """A part of an item is complete."""

    content_index: int = 0
    part: ResponseOutputText | ResponseReasoningText


class OutputTextDelta(InItem, tag="response.output_text.delta", kw_only=True):
    """A piece of text."""

    content_index: int = 0
    delta: str
    logprobs: list[Logprob] = []


class OutputTextDone(InItem, tag="response.output_text.done", kw_only=True):
    """All of it."""

    content_index: int = 0
    text: str
    logprobs: list[Logprob] = []


class ReasoningTextDelta(InItem, tag="response.reasoning_text.delta", kw_only=True):
    """A piece of reasoning."""

    content_index: int = 0
    delta: str


class ReasoningTextDone(InItem, tag="response.reasoning_text.done", kw_only=True):
    """All of it."""

    content_index: int = 0
    text: str


class SummaryPartAdded(InItem, tag="response.reasoning_summary_part.added", kw_only=True):
    """A summary begins."""

    summary_index: int = 0
    part: ResponseSummaryText


class SummaryPartDone(InItem, tag="response.reasoning_summary_part.done", kw_only=True):
    """A summary is complete."""

    summary_index: int = 0
    part: ResponseSummaryText


class SummaryTextDelta(InItem, tag="response.reasoning_summary_text.delta", kw_only=True):
    """A piece of a summary."""

    summary_index: int = 0
    delta: str


class SummaryTextDone(InItem, tag="response.reasoning_summary_text.done", kw_only=True):
    """All of it."""

    summary_index: int = 0
    text: str


class ArgumentsDelta(InItem, tag="response.function_call_arguments.delta", kw_only=True):
    """A piece of a call's arguments."""

    delta: str


class ArgumentsDone(InItem, tag="response.function_call_arguments.done", kw_only=True):
    """All of them."""

    name: str
    arguments: str


OutputEvent = (
    ItemAdded
    | ItemDone
    | PartAdded
    | PartDone
    | OutputTextDelta
    | OutputTextDone
    | ReasoningTextDelta
    | ReasoningTextDone
    | SummaryPartAdded
    | SummaryPartDone
    | SummaryTextDelta
    | SummaryTextDone
    | ArgumentsDelta
    | ArgumentsDone
)
ResponseEvent = (
    ResponseCreated | ResponseInProgress | ResponseCompleted | ResponseIncomplete | ResponseFailed | OutputEvent
)
