"""`/v1/chat/completions` and `/chat_tokenize`.

Owns the way from a conversation to OpenAI's answer or chunks. Does not own templates nor sampling
(`serving`). `platform_routes` reuses `chat_answer` and `chat_conversation`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tgi.api.openai.chat_answer import ChatAnswer
from tgi.api.openai.chat_answer_types import ChatCompletion, ChatCompletionChunk, ChatTokenizeResponse
from tgi.api.openai.chat_types import ChatRequest
from tgi.api.openapi.document import documented
from tgi.api.server.access import Routes
from tgi.api.server.call import Call
from tgi.api.server.chat import PreparedChat, prepare_chat
from tgi.api.tgi.token_answer import token_answer
from tgi.api.wire.streaming import event
from tgi.serving.chat.conversation import Conversation
from tgi.serving.chat.plan import plan_chat
from tgi.serving.dialect import Dialect
from tgi.serving.spans import TokenSpans
from tgi.serving.types import SamplingParams

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
    return await call.unhurried(body.conversation, ignored)


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
            yield b"".join(event(chunk) for delta in deltas for chunk in answer.chunks(delta))
    if answer.body.include_usage:
        yield event(answer.last_chunk())
