"""`/v1/chat/completions` and `/chat_tokenize`.

Owns the way from a conversation to OpenAI's answer or chunks. Does not own templates nor sampling
(`serving`). `platform_routes` reuses `chat_answer` and `chat_conversation`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tgi.api.openai.chat_types import (
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatLogprobs,
    ChatRequest,
    ChatTokenizeResponse,
    Logprob,
    TextMessage,
    TopLogprob,
)
from tgi.api.openai.types import FINGERPRINT, FINISH_REASONS, known
from tgi.api.openai.usage import Tally, Usage
from tgi.api.openapi.document import documented
from tgi.api.server.access import Routes
from tgi.api.server.call import Call
from tgi.api.server.chat import PreparedChat, prepare_chat
from tgi.api.tgi.token_answer import token_answer
from tgi.api.wire.long_answer import LongLists
from tgi.api.wire.streaming import event
from tgi.serving.chat.conversation import Conversation
from tgi.serving.chat.plan import plan_chat
from tgi.serving.dialect import Dialect
from tgi.serving.spans import TokenSpans
from tgi.serving.types import Completion, Delta, SamplingParams, TextToken

routes = Routes()
encode = msgspec.json.Encoder().encode


@routes.post("/v1/chat/completions")
@documented("chat_completions", ChatRequest, ChatCompletion, ChatCompletionChunk)
async def chat_completions(request: Request) -> Response:
    """Answer a conversation; with `stream` as server-sent events."""
    async with Call(request, openai=True) as call:
        return await chat_answer(call, await call.read(ChatRequest))


@routes.post("/chat_tokenize")
@documented("get_chat_tokenize", ChatRequest, ChatTokenizeResponse)
async def chat_tokenize(request: Request) -> Response:
    """The prompt that a conversation becomes, and its tokens."""
    async with Call(request) as call:
        body = await call.read(ChatRequest)
        body.check_model(call.api.known_names, call.ignored)
        call.ignored += body.without_prompt()
        prompt, spans = await call.wait(_tokenize(call, body))
        after = b'],"templated_text":' + encode(prompt) + b"}"
        return await token_answer(call, spans, b'{"tokenize_response":[', after)


async def _tokenize(call: Call, body: ChatRequest) -> tuple[str, TokenSpans]:
    plan = await plan_chat(call.api.service, await chat_conversation(call, body, call.ignored))
    return plan.prompt, await call.api.service.tokenize(plan.prompt, add_special_tokens=False)


async def chat_conversation(call: Call, body: ChatRequest, ignored: list[str]) -> Conversation:
    """What the body means; raises ToolError, ValidationError."""
    body.check_supported(ignored)
    return await call.unhurried(body.conversation)


async def chat_answer(call: Call, body: ChatRequest) -> Response:
    """The answer of `/v1/chat/completions`, also for `/invocations`."""
    body.check_model(call.api.known_names, call.ignored)
    body.check_stream_options(call.ignored)
    params = await call.unhurried(body.chat_sampling, call.ignored, call.api.service.openai_defaults)
    await call.take_samples(params.n)
    chat = await call.wait(_prepare(call, body, params))
    prepared, answer = chat.prepared, ChatAnswer(call.api.served_model_id, body, chat)
    if body.stream:
        return call.stream(_events(call, answer))
    completions = await call.wait(call.complete(prepared))
    headers = call.timing_headers(prepared.input_length, completions)
    items = sum(one.listed_tokens for one in completions) if body.logprobs else 0
    return call.answer(await call.written(partial(answer.whole, completions), items), headers)


async def _prepare(call: Call, body: ChatRequest, params: SamplingParams) -> PreparedChat:
    conversation = await chat_conversation(call, body, call.ignored)
    return await prepare_chat(call, conversation, params, chat_dialect(body), body.stream)


def chat_dialect(body: ChatRequest) -> Dialect:
    """How `serving` treats a conversation: as OpenAI does, and with the names of its fields."""
    return body.dialect(inputs="messages", top_n_tokens="top_logprobs")


async def _events(call: Call, answer: ChatAnswer) -> AsyncGenerator[bytes, None]:
    async with aclosing(call.api.service.stream(answer.chat.prepared)) as batches:
        async for deltas in batches:
            for delta in deltas:
                if delta.final is not None:
                    call.finished(answer.chat.prepared, delta.final)
            yield b"".join(event(answer.chunk(delta)) for delta in deltas)
    if answer.body.include_usage:
        yield event(answer.last_chunk())


class ChatAnswer:
    """One answer while it grows: its id, and what has been sent of it."""

    def __init__(self, model: str, body: ChatRequest, chat: PreparedChat) -> None:
        self.body = body
        self.chat = chat
        self._model = model
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._tally = Tally(chat.prepared.input_length)
        self._begun: set[int] = set()
        """Samples whose role has been sent."""

    def whole(self, completions: list[Completion], lists: LongLists) -> ChatCompletion:
        for one in completions:
            self._tally.cached(0, one.cached_tokens)
            self._tally.completion_tokens += one.generated_tokens
        choices = [
            ChatChoice(
                index=one.index,
                message=TextMessage("assistant", one.text),
                logprobs=ChatLogprobs(lists.array(_logprob, one.tokens)) if self.body.logprobs else None,
                finish_reason=FINISH_REASONS[one.finish_reason],
            )
            for one in completions
        ]
        return ChatCompletion(
            "chat.completion", self._id, self._created, self._model, FINGERPRINT, choices, self._tally.usage()
        )

    def chunk(self, delta: Delta) -> ChatCompletionChunk:
        """The event of one token; the role comes with the first of each sample."""
        self._tally.cached(0, delta.cached_tokens)
        self._tally.completion_tokens += 1
        content = ChatDelta(content=delta.text)
        if delta.index not in self._begun:
            self._begun.add(delta.index)
            content.role = "assistant"
        choice = ChatChunkChoice(
            index=delta.index,
            delta=content,
            logprobs=ChatLogprobs([_logprob(delta.token)]) if self.body.logprobs else None,
            finish_reason=None if delta.final is None else FINISH_REASONS[delta.final.finish_reason],
        )
        return self._chunk([choice], self._tally.usage() if self.body.usage_in_chunks else None)

    def last_chunk(self) -> ChatCompletionChunk:
        """The usage, with empty choices."""
        return self._chunk([], self._tally.usage())

    def _chunk(self, choices: list[ChatChunkChoice], usage: Usage | None) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            "chat.completion.chunk", self._id, self._created, self._model, FINGERPRINT, choices, usage
        )


def _logprob(token: TextToken) -> Logprob:
    alternatives = [TopLogprob(other.text, known(other.logprob), list(other.raw)) for other in token.top]
    return Logprob(token.text, known(token.logprob), list(token.raw), alternatives)
