"""OpenAI's answer to a conversation, and its chunks.

Owns what text, reasoning and calls become on the wire. Does not own how they are told apart (`serving.chat`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator

from msgspec import UNSET

from tgi.api.openai.chat_answer_types import (
    CallDelta,
    CalledFunction,
    CallMade,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatLogprobs,
    FunctionDelta,
    Logprob,
    TextMessage,
    TopLogprob,
)
from tgi.api.openai.chat_types import ChatRequest
from tgi.api.openai.types import FINGERPRINT, FINISH_REASONS, known
from tgi.api.openai.usage import Tally, Usage
from tgi.api.server.chat import PreparedChat
from tgi.api.wire.long_answer import LongLists
from tgi.serving.chat.parts import CallArguments, CallBegin, Part, PlainReader, Reader, Reasoning, Text, put_together
from tgi.serving.types import Completion, Delta, FinishReason, TextToken


class ChatAnswer:
    """One answer while it grows: its id, and what has been sent of it."""

    def __init__(self, model: str, body: ChatRequest, chat: PreparedChat) -> None:
        self.body = body
        self.chat = chat
        self._model = model
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._tally = Tally(chat.prepared.input_length)
        if chat.plan.reasons:
            self._tally.reasoning_tokens = 0
        self._samples: dict[int, Sample] = {}

    def whole(self, completions: list[Completion], lists: LongLists) -> ChatCompletion:
        choices = []
        for one in completions:
            self._tally.cached(0, one.cached_tokens)
            self._tally.completion_tokens += one.generated_tokens
            reader = self.chat.reader()
            message, called = whole_message([*reader.feed(one.text), *reader.end()])
            if self._tally.reasoning_tokens is not None:
                self._tally.reasoning_tokens += reasoning_tokens(self.chat, one.tokens)
            choices.append(
                ChatChoice(
                    index=one.index,
                    message=message,
                    logprobs=ChatLogprobs(lists.array(logprob_of, one.tokens)) if self.body.logprobs else None,
                    finish_reason=finish_reason(one.finish_reason, called),
                )
            )
        return ChatCompletion(
            "chat.completion", self._id, self._created, self._model, FINGERPRINT, choices, self._tally.usage()
        )

    def chunks(self, delta: Delta) -> Iterator[ChatCompletionChunk]:
        """The events of one token: one, unless it shows nothing, is of several parts, or ends calls."""
        sample = self._samples.get(delta.index)
        if sample is None:
            sample = self._samples[delta.index] = Sample(self.chat.reader(), bool(self.body.logprobs))
        self._tally.cached(0, delta.cached_tokens)
        self._tally.completion_tokens += 1
        if self._tally.reasoning_tokens is not None:
            self._tally.reasoning_tokens += sample.reader.reasons
        logprobs = ChatLogprobs([logprob_of(delta.token)]) if self.body.logprobs else None
        for content, reason in sample.take(delta):
            choice = ChatChunkChoice(index=delta.index, delta=content, logprobs=logprobs, finish_reason=reason)
            yield self._chunk([choice], self._tally.usage() if self.body.usage_in_chunks else None)
            logprobs = None  # they are the token's, and go with its first event

    def last_chunk(self) -> ChatCompletionChunk:
        """The usage, with empty choices."""
        return self._chunk([], self._tally.usage())

    def _chunk(self, choices: list[ChatChunkChoice], usage: Usage | None) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            "chat.completion.chunk", self._id, self._created, self._model, FINGERPRINT, choices, usage
        )


class Sample:
    """What has been sent of one sample."""

    def __init__(self, reader: Reader, every_token: bool) -> None:
        """`every_token`: also one that shows nothing, such as a mark of a call, has an event; else only plain ones."""
        self.reader = reader
        self._every_token = every_token or isinstance(reader, PlainReader)
        self._begun = False
        self._called = False

    def take(self, delta: Delta) -> Iterator[tuple[ChatDelta, str | None]]:
        """The deltas of a token; the last has the finish reason, of a call's nothing but that."""
        parts = self.reader.feed(delta.text)
        if delta.final is not None:
            parts += self.reader.end()
        if any(isinstance(part, CallBegin) for part in parts):
            self._called = True
        deltas = [_delta(part) for part in parts]
        if not deltas:
            if delta.final is None and not self._every_token:
                return
            deltas = [ChatDelta() if self._called else ChatDelta(content="")]
        if not self._begun:
            self._begun = True
            deltas[0].role = "assistant"
        reason = None if delta.final is None else finish_reason(delta.final.finish_reason, self._called)
        if reason is not None and parts and deltas[-1].content is UNSET:
            deltas.append(ChatDelta())
        for number, one in enumerate(deltas, 1):
            yield one, reason if number == len(deltas) else None


def _delta(part: Part) -> ChatDelta:
    match part:
        case Text(text):
            return ChatDelta(content=text)
        case Reasoning(text):
            return ChatDelta(reasoning_content=text, reasoning=text)
        case CallBegin(index, id, name):
            return ChatDelta(tool_calls=[CallDelta(index, FunctionDelta("", name), id, "function")])
        case CallArguments(index, text):
            return ChatDelta(tool_calls=[CallDelta(index, FunctionDelta(text))])


def whole_message(parts: Iterable[Part]) -> tuple[TextMessage, bool]:
    """The message of all parts, and whether there are calls in it."""
    whole = put_together(parts)
    calls = [CallMade(call.id, "function", CalledFunction(call.name, call.arguments)) for call in whole.calls]
    reasoning = whole.reasoning or UNSET
    return TextMessage("assistant", whole.text, calls or UNSET, reasoning, reasoning), bool(calls)


def finish_reason(reason: FinishReason, called: bool) -> str:
    """In OpenAI's words; an answer with calls that was cut is an answer that was cut."""
    return "tool_calls" if called and reason != "length" else FINISH_REASONS[reason]


def reasoning_tokens(chat: PreparedChat, tokens: list[TextToken]) -> int:
    """How many of the tokens are reasoning."""
    reader, count = chat.reader(), 0
    for token in tokens:
        count += reader.reasons
        if not token.special or token.text in chat.plan.shown:
            reader.feed(token.text)
    return count


def logprob_of(token: TextToken) -> Logprob:
    """A token as OpenAI lists it."""
    alternatives = [TopLogprob(other.text, known(other.logprob), list(other.raw)) for other in token.top]
    return Logprob(token.text, known(token.logprob), list(token.raw), alternatives)
