"""Answers of `/v1/responses`: the response and its items.

Owns their names and types. Events of a stream are in `events`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tgi.api.openai.chat_answer_types import Logprob


class ResponseOutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    """A text of the answer."""

    text: str
    annotations: list[Any] = []
    logprobs: list[Logprob] = []


class ResponseReasoningText(msgspec.Struct, tag_field="type", tag="reasoning_text"):
    """What the model thought."""

    text: str


class ResponseSummaryText(msgspec.Struct, tag_field="type", tag="summary_text"):
    """The same, where a summary was asked for."""

    text: str


class ResponseMessage(msgspec.Struct, tag_field="type", tag="message"):
    """The assistant's text."""

    id: str
    status: str
    content: list[ResponseOutputText]
    role: str = "assistant"


class ResponseReasoning(msgspec.Struct, tag_field="type", tag="reasoning"):
    """What the model thought before it went on."""

    id: str
    status: str
    summary: list[ResponseSummaryText]
    content: list[ResponseReasoningText]


class ResponseFunctionCall(msgspec.Struct, tag_field="type", tag="function_call"):
    """A call of a tool; `arguments` is JSON."""

    id: str
    status: str
    call_id: str
    name: str
    arguments: str


ResponseOutputItem = ResponseMessage | ResponseReasoning | ResponseFunctionCall


class InputTokensDetails(msgspec.Struct):
    """What is known of the tokens of the prompt."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct):
    """What is known of the tokens of the answer."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct):
    """Tokens of a request."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseFailure(msgspec.Struct):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(msgspec.Struct):
    """Why a response is incomplete."""

    reason: str


class ResponseReasoningAnswer(msgspec.Struct):
    """How the model was asked to think."""

    effort: str | None
    summary: str | None


class ResponseObject(msgspec.Struct):
    """A response: what was asked, what came of it, and what it took."""

    id: str
    created_at: int
    model: str
    status: str
    output: list[ResponseOutputItem]
    frequency_penalty: float
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    presence_penalty: float
    previous_response_id: str | None
    reasoning: ResponseReasoningAnswer
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_p: float
    truncation: str
    object: str = "response"
    background: bool = False
    completed_at: int | None = None
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    max_tool_calls: int | None = None
    service_tier: str = "default"
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    top_logprobs: int = 0
    usage: ResponseUsage | None = None
    user: str | None = None


class DeletedResponse(msgspec.Struct):
    """That a response is no longer kept."""

    id: str
    object: str = "response"
    deleted: bool = True


class InputItemList(msgspec.Struct):
    """Items of the input of a response."""

    data: list[Any]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"
