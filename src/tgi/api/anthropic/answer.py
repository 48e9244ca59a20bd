"""Answers of `/v1/messages`: messages, their blocks, and the events of a stream.

Owns their names and types. What they hold is `blocks`'s.
"""

from __future__ import annotations

from typing import Any

import msgspec


class TextAnswer(msgspec.Struct, tag_field="type", tag="text"):
    """A text of the answer."""

    text: str


class ThinkingAnswer(msgspec.Struct, tag_field="type", tag="thinking"):
    """What the model thought."""

    thinking: str
    signature: str


class ToolUseAnswer(msgspec.Struct, tag_field="type", tag="tool_use"):
    """A call of a tool."""

    id: str
    name: str
    input: dict[str, Any]


BlockAnswer = TextAnswer | ThinkingAnswer | ToolUseAnswer


class OutputDetails(msgspec.Struct):
    """What is known of the tokens of an answer."""

    thinking_tokens: int


class MessageUsage(msgspec.Struct):
    """Tokens of a request; those of the prompt that were in the prefix cache count apart."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputDetails


class MessageAnswer(msgspec.Struct, tag_field="type", tag="message"):
    """A whole answer."""

    id: str
    role: str
    model: str
    content: list[BlockAnswer]
    stop_reason: str | None
    stop_sequence: str | None
    usage: MessageUsage


class TokenCount(msgspec.Struct):
    """Tokens of a conversation as a prompt."""

    input_tokens: int


class TextDelta(msgspec.Struct, tag_field="type", tag="text_delta"):
    """A piece of a text."""

    text: str


class ThinkingDelta(msgspec.Struct, tag_field="type", tag="thinking_delta"):
    """A piece of what the model thinks."""

    thinking: str


class SignatureDelta(msgspec.Struct, tag_field="type", tag="signature_delta"):
    """The end of it."""

    signature: str


class InputJsonDelta(msgspec.Struct, tag_field="type", tag="input_json_delta"):
    """A piece of a call's arguments."""

    partial_json: str


class MessageStart(msgspec.Struct, tag_field="type", tag="message_start"):
    """The first event: the message without content."""

    message: MessageAnswer


class Ping(msgspec.Struct, tag_field="type", tag="ping"):
    """Nothing."""


class BlockStart(msgspec.Struct, tag_field="type", tag="content_block_start"):
    """An empty block."""

    index: int
    content_block: BlockAnswer


class BlockDelta(msgspec.Struct, tag_field="type", tag="content_block_delta"):
    """What is added to a block."""

    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta


class BlockStop(msgspec.Struct, tag_field="type", tag="content_block_stop"):
    """A block is complete."""

    index: int


class StopDelta(msgspec.Struct):
    """Why the answer ended."""

    stop_reason: str | None
    stop_sequence: str | None


class MessageDelta(msgspec.Struct, tag_field="type", tag="message_delta"):
    """How the message ends."""

    delta: StopDelta
    usage: MessageUsage


class MessageStop(msgspec.Struct, tag_field="type", tag="message_stop"):
    """The last event."""


MessageEvent = MessageStart | Ping | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop
