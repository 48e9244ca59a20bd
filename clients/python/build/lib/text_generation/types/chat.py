"""Types of `/v1/chat/completions`: messages, tools, request, answer, chunk."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, field_validator, with_config
from typing_extensions import TypedDict

from text_generation.types.base import Answer, Wire
from text_generation.types.generation import Grammar


@with_config(ConfigDict(extra="allow"))
class Usage(TypedDict, total=False):
    """Token counts. A dict, as in earlier versions of this package."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Chunk(Wire):
    """A part of a message's content: `{"type": "text", "text": ...}` or `{"type": "image_url", ...}`."""

    type: str
    text: str | None = None
    image_url: Any = None


class ToolCall(Wire):
    """A call of a tool by the model."""

    id: int | str
    type: str
    function: dict[str, Any]


class Message(Wire):
    """A message of a conversation, in a request or in an answer."""

    role: str
    content: str | list[Chunk] | None = None
    name: str | None = None
    tool_calls: Any = None
    """In answers: a list of dicts with `id`, `type` and `function`."""
    tool_call_id: str | None = None


class Tool(Wire):
    """A function the model may call: `{"name", "description", "parameters"}`."""

    type: str
    function: dict[str, Any]


class ChatRequest(Wire):
    """Body of a chat request. `model` names an adapter; `tgi` is the served model."""

    model: str
    messages: list[Message]
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: list[float] | dict[int | str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    max_tokens: int | None = None
    n: int | None = None
    presence_penalty: float | None = None
    stream: bool = False
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    tool_prompt: str | None = None
    stop: str | list[str] | None = None
    max_completion_tokens: int | None = None
    response_format: Grammar | dict[str, Any] | None = None
    stream_options: dict[str, Any] | None = None


class ChatCompletionComplete(Answer):
    """One choice of a whole chat answer."""

    index: int = 0
    message: Message
    logprobs: Any = None
    finish_reason: str | None = None
    usage: Any = None


class ChatComplete(Answer):
    """A whole chat answer."""

    id: str = ""
    object: str = "chat.completion"
    created: int = 0
    model: str = ""
    system_fingerprint: str = ""
    choices: list[ChatCompletionComplete]
    usage: Usage | None = None


class Function(Answer):
    """Name and (a piece of) the JSON arguments of a streamed call."""

    name: str | None = None
    arguments: str = ""


class ChoiceDeltaToolCall(Answer):
    """A piece of a streamed call; OpenAI servers send `id` and `type` on its first piece only."""

    index: int = 0
    id: str | None = None
    type: str | None = None
    function: Function = Function()


class ChoiceDelta(Answer):
    """What a chunk adds to a message."""

    role: str | None = None
    content: str | None = None
    tool_calls: list[ChoiceDeltaToolCall] | None = None

    @field_validator("tool_calls", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        # Older servers send a single object where current ones send a list.
        return [value] if isinstance(value, dict) else value


class Choice(Answer):
    """One choice of a chunk."""

    index: int = 0
    delta: ChoiceDelta = ChoiceDelta()
    logprobs: dict[str, Any] | None = None
    finish_reason: str | None = None


class ChatCompletionChunk(Answer):
    """One event of a chat stream; the one with `usage` may have no choices."""

    id: str = ""
    object: str = "chat.completion.chunk"
    created: int = 0
    model: str = ""
    system_fingerprint: str = ""
    choices: list[Choice]
    usage: Usage | None = None
