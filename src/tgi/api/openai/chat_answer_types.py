"""Answers of `/v1/chat/completions`, whole and in chunks, and of `/chat_tokenize`."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from tgi.api.openai.usage import Usage
from tgi.api.tgi.types import SimpleToken


class TopLogprob(msgspec.Struct):
    """An alternative of a token."""

    token: str
    logprob: float
    bytes: list[int] | None


class Logprob(msgspec.Struct):
    """A generated token; `bytes` are its own, also where they are only a part of a character."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct):
    """Log-probabilities of a choice."""

    content: list[Logprob]


class CalledFunction(msgspec.Struct):
    """Name and arguments, which are JSON text."""

    name: str
    arguments: str


class CallMade(msgspec.Struct):
    """A call that the model wants to be made."""

    id: str
    type: str
    function: CalledFunction


class TextMessage(msgspec.Struct):
    """The assistant's answer."""

    role: str
    content: str | None
    """null: there are only calls."""
    tool_calls: list[CallMade] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    """The same."""


class ChatChoice(msgspec.Struct):
    """One sample."""

    index: int
    message: TextMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatCompletion(msgspec.Struct):
    """A whole answer."""

    object: str
    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class FunctionDelta(msgspec.Struct):
    """The name with the first piece of a call, of the arguments a piece."""

    arguments: str
    name: str | UnsetType = UNSET


class CallDelta(msgspec.Struct):
    """A piece of a call; id, type and name come with its first."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET


class ChatDelta(msgspec.Struct):
    """What a token adds; the role comes with the first of a choice."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    """The same."""
    tool_calls: list[CallDelta] | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct):
    """A token of one sample."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: str | None


class ChatCompletionChunk(msgspec.Struct):
    """One event: one token, or at the end the usage without choices."""

    object: str
    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | None


class ChatTokenizeResponse(msgspec.Struct):
    """The prompt that a conversation becomes, and its tokens."""

    tokenize_response: list[SimpleToken]
    templated_text: str
