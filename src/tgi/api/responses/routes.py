"""`/v1/responses`.

Owns the way from a body to a response or its events. Does not own what items mean (`context`, `convert`, `output`), nor
generation, nor the routes about what is kept (`kept_routes`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tgi.api.openapi.document import documented
from tgi.api.responses.answer import (
    IncompleteDetails,
    InputTokensDetails,
    OutputTokensDetails,
    ResponseFailure,
    ResponseObject,
    ResponseReasoningAnswer,
    ResponseUsage,
)
from tgi.api.responses.context import Context, context_of, fitted, kept_items
from tgi.api.responses.convert import FORMAT
from tgi.api.responses.events import (
    ResponseCompleted,
    ResponseCreated,
    ResponseEvent,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
)
from tgi.api.responses.output import Output
from tgi.api.responses.store import Kept
from tgi.api.responses.types import ResponseFunctionTool, ResponsesRequest
from tgi.api.server.access import GROUP, Routes
from tgi.api.server.call import Call
from tgi.api.server.chat import PreparedChat
from tgi.api.server.turn import Turn, check_model, prepare_turn, turn_sampling
from tgi.api.wire.forms import RESPONSES as FORM
from tgi.api.wire.streaming import named_event
from tgi.errors import TgiError
from tgi.serving.dialect import RESPONSES

routes = Routes()
encode = msgspec.json.Encoder().encode
ECHOED = ("user", "safety_identifier", "prompt_cache_key")
"""Fields that are returned and have no other effect."""
NAMES = {"reasoning_effort": "reasoning.effort", "tools.function.strict": "tools.strict"}
"""Of OpenAI's chat fields."""


@routes.post("/v1/responses")
@documented("responses", ResponsesRequest, ResponseObject, ResponseEvent)
async def responses(request: Request) -> Response:
    """Answer items as OpenAI's Responses API does; with `stream` as server-sent events."""
    async with Call(request, form=FORM) as call:
        body = await call.read(ResponsesRequest)
        body.check()
        check_model(call, body.model)
        call.ignored += (name for name in ECHOED if getattr(body, name) is not None)
        call.ignored += body.without_effect()
        if body.store and not call.api.responses.limit and "store" in body.model_fields_set:
            call.ignored.append("store")
        context = await context_of(call, body)
        chat = await call.wait(_prepare(call, body, context))
        given = await call.unhurried(kept_items, context.own) if answer_is_kept(call, body) else []
        answer = Answer(call, body, given, chat)
        if body.stream:
            return call.stream(answer.events(), answer.failed)
        whole = await call.wait(answer.whole())
        return call.answer(whole, answer.turn.headers())


async def _prepare(call: Call, body: ResponsesRequest, context: Context) -> PreparedChat:
    params = turn_sampling(
        call.api.service.openai_defaults,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        max_new_tokens=body.max_output_tokens,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        top_n_tokens=body.top_logprobs if body.wants_logprobs else None,
    )
    conversation = await fitted(call, body, context)
    return await prepare_turn(call, conversation, params, RESPONSES, NAMES, FORMAT, body.stream)


def answer_is_kept(call: Call, body: ResponsesRequest) -> bool:
    """Whether the response is stored when it is complete."""
    return body.store and call.api.responses.limit > 0


class Answer:
    """One response while it grows."""

    def __init__(
        self, call: Call, body: ResponsesRequest, given: Sequence[tuple[str, bytes]], chat: PreparedChat
    ) -> None:
        """`given`: the items of its own input as they are kept, if they are."""
        self.turn = Turn(call, chat, with_tokens=body.wants_logprobs)
        self._call = call
        self._body = body
        self._given = given
        self._params = chat.prepared.params
        self._id = f"resp_{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._output = Output(summary=body.reasoning is not None and body.reasoning.summary is not None)
        self._events = 0

    async def whole(self) -> bytes:
        """The response as JSON, once it is complete; kept if it is to be."""
        for part in await self.turn.finish():
            self._output.feed(part)
        self._output.end(self._item_status)
        return self._ended()[1]

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The response as it comes; the first event goes out with the first token."""
        begun = False
        async with aclosing(self.turn.parts()) as batches:
            async for parts in batches:
                events: list[ResponseEvent] = []
                if not begun:
                    begun = True
                    empty = self._response("in_progress")
                    events += [ResponseCreated(response=empty), ResponseInProgress(response=empty)]
                for part in parts:
                    events += self._output.feed(part)
                if self.turn.final is not None:
                    events += self._output.end(self._item_status)
                    response, _ = self._ended()
                    cut = response.status == "incomplete"
                    events.append((ResponseIncomplete if cut else ResponseCompleted)(response=response))
                yield b"".join(map(self._written, events))

    def failed(self, error: TgiError) -> bytes:
        """The event that ends a stream when something went wrong."""
        self._output.end("incomplete")
        response = self._response("failed")
        response.error = ResponseFailure("server_error", error.text)
        return self._written(ResponseFailed(response=response))

    def _written(self, event: ResponseEvent) -> bytes:
        event.sequence_number = self._events
        self._events += 1
        return named_event(event)

    @property
    def _cut(self) -> bool:
        return self.turn.final is not None and self.turn.final.finish_reason == "length"

    @property
    def _item_status(self) -> Any:
        return "incomplete" if self._cut else "completed"

    def _ended(self) -> tuple[ResponseObject, bytes]:
        response = self._response("incomplete" if self._cut else "completed")
        response.usage = self._usage()
        if self._cut:
            response.incomplete_details = IncompleteDetails("max_output_tokens")
        else:
            response.completed_at = int(time.time())
        written = encode(response)
        if response.store:
            self._keep(response, written)
        return response, written

    def _keep(self, response: ResponseObject, written: bytes) -> None:
        store, scope = self._call.api.responses, self._call.request.scope
        given = self._given
        output = tuple(encode(item) for item in response.output)
        ids = (*(id for id, _ in given), *(item.id for item in response.output))
        own = tuple(item for _, item in given)
        previous = self._body.previous_response_id
        store.put(Kept(self._id, scope.get(GROUP, 0), previous, written, own, output, ids))

    def _usage(self) -> ResponseUsage:
        turn = self.turn
        return ResponseUsage(
            turn.input_tokens,
            InputTokensDetails(turn.cached_tokens),
            turn.output_tokens,
            OutputTokensDetails(turn.reasoning_tokens),
            turn.input_tokens + turn.output_tokens,
        )

    def _response(self, status: str) -> ResponseObject:
        body, params = self._body, self._params
        reasoning = body.reasoning
        return ResponseObject(
            id=self._id,
            created_at=self._created,
            model=self._call.api.served_model_id,
            status=status,
            output=list(self._output.items),
            frequency_penalty=params.frequency_penalty or 0.0,
            presence_penalty=params.presence_penalty or 0.0,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            metadata=body.metadata,
            parallel_tool_calls=body.parallel_tool_calls,
            previous_response_id=body.previous_response_id,
            reasoning=ResponseReasoningAnswer(
                None if reasoning is None else reasoning.effort, None if reasoning is None else reasoning.summary
            ),
            store=answer_is_kept(self._call, body),
            temperature=1.0 if params.temperature is None else params.temperature,
            text={"format": (body.text and body.text.format) or {"type": "text"}},
            tool_choice=body.tool_choice if isinstance(body.tool_choice, str) else _choice(body),
            tools=[_tool(tool) for tool in body.tools if isinstance(tool, ResponseFunctionTool)],
            top_p=1.0 if params.top_p is None else params.top_p,
            truncation=body.truncation,
            top_logprobs=(body.top_logprobs or 0) if body.wants_logprobs else 0,
            user=body.user,
            safety_identifier=body.safety_identifier,
            prompt_cache_key=body.prompt_cache_key,
        )


def _choice(body: ResponsesRequest) -> dict[str, Any]:
    assert not isinstance(body.tool_choice, str)
    names = ("type", "mode", "tools") if body.tool_choice.type == "allowed_tools" else ("type", "name")
    return {name: getattr(body.tool_choice, name) for name in names}


def _tool(tool: ResponseFunctionTool) -> dict[str, Any]:
    return {name: getattr(tool, name) for name in ("type", "name", "description", "parameters", "strict")}
