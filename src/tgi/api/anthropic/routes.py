"""`/v1/messages` and `/v1/messages/count_tokens`.

Owns the way from a body to a message or its events. Does not own what blocks mean (`convert`, `blocks`) nor generation.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tgi.api.anthropic.answer import (
    MessageAnswer,
    MessageDelta,
    MessageEvent,
    MessageStart,
    MessageStop,
    MessageUsage,
    OutputDetails,
    Ping,
    StopDelta,
    TokenCount,
)
from tgi.api.anthropic.blocks import Blocks
from tgi.api.anthropic.convert import FORMAT, check_budget, conversation_of
from tgi.api.anthropic.types import CountRequest, MessagesRequest
from tgi.api.openapi.document import documented
from tgi.api.server.access import Routes
from tgi.api.server.call import Call
from tgi.api.server.chat import PreparedChat
from tgi.api.server.turn import Turn, check_model, prepare_turn, turn_sampling
from tgi.api.wire.forms import ANTHROPIC as FORM
from tgi.api.wire.streaming import named_event
from tgi.serving.chat.conversation import Conversation
from tgi.serving.chat.plan import plan_chat
from tgi.serving.dialect import ANTHROPIC

routes = Routes()
encode = msgspec.json.Encoder().encode
NAMES = {
    "max_thinking_tokens": "thinking.budget_tokens",
    "reasoning_effort": "thinking",
    "tools.function.strict": "tools.strict",
}
"""Of OpenAI's chat fields."""


@routes.post("/v1/messages")
@documented("messages", MessagesRequest, MessageAnswer, MessageEvent)
async def messages(request: Request) -> Response:
    """Answer a conversation as Anthropic's API does; with `stream` as server-sent events."""
    async with Call(request, form=FORM) as call:
        body = await call.read(MessagesRequest)
        check_model(call, body.model)
        check_budget(body)
        chat = await call.wait(_prepare(call, body))
        answer = Answer(call.api.served_model_id, Turn(call, chat))
        if body.stream:
            return call.stream(answer.events())
        whole = await call.wait(answer.whole())
        return call.answer(encode(whole), answer.turn.headers())


@routes.post("/v1/messages/count_tokens")
@documented("count_message_tokens", CountRequest, TokenCount)
async def count_tokens(request: Request) -> Response:
    """How many tokens a conversation is as a prompt."""
    async with Call(request, form=FORM, counted=False) as call:
        body = await call.read(CountRequest)
        check_model(call, body.model)
        return call.answer(encode(TokenCount(await call.wait(_count(call, body)))), call.headers())


async def _conversation(call: Call, body: CountRequest) -> Conversation:
    return await call.unhurried(conversation_of, body, call.ignored)


async def _prepare(call: Call, body: MessagesRequest) -> PreparedChat:
    params = turn_sampling(
        call.api.service.openai_defaults,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        max_new_tokens=body.max_tokens,
        stop=body.stop_sequences,
    )
    conversation = await _conversation(call, body)
    return await prepare_turn(call, conversation, params, ANTHROPIC, NAMES, FORMAT, body.stream)


async def _count(call: Call, body: CountRequest) -> int:
    plan = await plan_chat(call.api.service, await _conversation(call, body))
    return len(await call.api.service.tokenize(plan.prompt, add_special_tokens=False))


class Answer:
    """One message while it grows."""

    def __init__(self, model: str, turn: Turn) -> None:
        self.turn = turn
        self._model = model
        self._id = f"msg_{uuid.uuid4().hex}"
        self._blocks = Blocks()

    async def whole(self) -> MessageAnswer:
        """The message, once it is complete."""
        for part in await self.turn.finish():
            self._blocks.feed(part)
        self._blocks.end()
        return self._message(self._stop())

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The message as it comes; the first event goes out with the first token."""
        begun = False
        async with aclosing(self.turn.parts()) as batches:
            async for parts in batches:
                events: list[MessageEvent] = []
                if not begun:
                    begun = True
                    events += [MessageStart(self._message(StopDelta(None, None), content=False)), Ping()]
                for part in parts:
                    events += self._blocks.feed(part)
                if self.turn.final is not None:
                    events += [*self._blocks.end(), MessageDelta(self._stop(), self._usage()), MessageStop()]
                yield b"".join(map(named_event, events))

    def _message(self, stop: StopDelta, *, content: bool = True) -> MessageAnswer:
        blocks = self._blocks.content if content else []
        reason, sequence = stop.stop_reason, stop.stop_sequence
        return MessageAnswer(self._id, "assistant", self._model, blocks, reason, sequence, self._usage())

    def _usage(self) -> MessageUsage:
        turn = self.turn
        fresh = turn.input_tokens - turn.cached_tokens
        return MessageUsage(fresh, 0, turn.cached_tokens, turn.output_tokens, OutputDetails(turn.reasoning_tokens))

    def _stop(self) -> StopDelta:
        final = self.turn.final
        assert final is not None
        if final.finish_reason == "length":
            cut = final.generated_tokens < (self.turn.wanted_tokens or 0)
            return StopDelta("model_context_window_exceeded" if cut else "max_tokens", None)
        if final.finish_reason == "stop_sequence" and final.stop_sequence is not None:
            return StopDelta("stop_sequence", final.stop_sequence)
        return StopDelta("tool_use" if self._blocks.calls else "end_turn", None)
