"""Bodies of `/v1/messages` and `/v1/messages/count_tokens`.

Owns their names and types. What they mean is `convert`'s.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from tgi.api.state import Api
from tgi.api.wire.fields import F32, I32, U32, Items, RequestModel, count, json_kind
from tgi.serving.tools.checks import check_tool_count
from tgi.serving.validation import check_stop_count


class TextBlockParam(RequestModel):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ThinkingBlockParam(RequestModel):
    """What the model thought in an earlier turn."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class RedactedThinkingBlockParam(RequestModel):
    """The same, unreadable: another server's."""

    type: Literal["redacted_thinking"]
    data: str = ""


class ToolUseBlockParam(RequestModel):
    """A call that the model made."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class OtherBlockParam(RequestModel):
    """An image, a document or the like: refused by the name of its type."""

    type: str


def _kind(known: frozenset[str], value: Any) -> str | None:
    """The tag of a block; None where it has no type."""
    kind = value.get("type") if isinstance(value, dict) else None
    return (kind if kind in known else "other") if isinstance(kind, str) else None


def _result_kind(value: Any) -> str | None:
    return _kind(frozenset({"text"}), value)


def _block_kind(value: Any) -> str | None:
    return _kind(frozenset({"text", "thinking", "redacted_thinking", "tool_use", "tool_result"}), value)


_NO_BLOCK: dict[str, Any] = {
    "custom_error_type": "block",
    "custom_error_message": "expected a content block, an object with a `type`",
}
_NO_CONTENT: dict[str, Any] = {
    "custom_error_type": "content",
    "custom_error_message": "expected a string or an array of content blocks",
}
ResultBlock = Annotated[
    Annotated[TextBlockParam, Tag("text")] | Annotated[OtherBlockParam, Tag("other")],
    Discriminator(_result_kind, **_NO_BLOCK),
]


class ToolResultBlockParam(RequestModel):
    """What a tool answered."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: (
        Annotated[
            Annotated[str, Tag("string")] | Annotated[Items[ResultBlock], Tag("array")],
            Discriminator(json_kind, **_NO_CONTENT),
        ]
        | None
    ) = None
    is_error: bool = Field(False, description="The tool failed: its answer is shown as an error.")


Block = Annotated[
    Annotated[TextBlockParam, Tag("text")]
    | Annotated[ThinkingBlockParam, Tag("thinking")]
    | Annotated[RedactedThinkingBlockParam, Tag("redacted_thinking")]
    | Annotated[ToolUseBlockParam, Tag("tool_use")]
    | Annotated[ToolResultBlockParam, Tag("tool_result")]
    | Annotated[OtherBlockParam, Tag("other")],
    Discriminator(_block_kind, **_NO_BLOCK),
]
Content = Annotated[
    Annotated[str, Tag("string")] | Annotated[Items[Block], Tag("array")], Discriminator(json_kind, **_NO_CONTENT)
]
System = Annotated[
    Annotated[str, Tag("string")] | Annotated[Items[TextBlockParam], Tag("array")],
    Discriminator(json_kind, custom_error_type="system", custom_error_message="expected a string or text blocks"),
]


class MessageParam(RequestModel):
    """One turn of a conversation."""

    role: Literal["user", "assistant", "system"] = Field(examples=["user"])
    content: Content = Field(examples=["What is Deep Learning?"])


class CustomToolParam(RequestModel):
    """A function that the model may call."""

    type: Literal["custom"] = "custom"
    name: str
    description: str | None = None
    input_schema: dict[str, Any] = Field(description="JSON schema of the arguments.")
    strict: bool = Field(False, description="The arguments must fit the schema.")


class ServerToolParam(RequestModel):
    """A tool that Anthropic's servers run or define; noted in `x-tgi-ignored`."""

    type: str


def _tool_kind(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    return "custom" if value.get("type") in (None, "custom") else "server"


AnyTool = Annotated[
    Annotated[CustomToolParam, Tag("custom")] | Annotated[ServerToolParam, Tag("server")],
    Discriminator(_tool_kind, custom_error_type="tool", custom_error_message="expected a tool, a JSON object"),
]


class ToolChoiceParam(RequestModel):
    """Whether tools are called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = Field(None, description="Of the tool to call, with `type` `tool`.")
    disable_parallel_tool_use: bool = False


class ThinkingParam(RequestModel):
    """Whether and how long the model thinks before it answers."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: U32 | None = Field(None, description="Tokens after which thinking is ended, with `type` `enabled`.")


class OutputConfigParam(RequestModel):
    """How the answer is made."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: dict[str, Any] | None = Field(None, description="`json_schema` with its `schema`: the answer fits it.")


class CountRequest(RequestModel):
    """A conversation."""

    model: str | None = Field(None, description="Name of the model; any name is served by the one model there is.")
    messages: Items[MessageParam] = Field(examples=[[{"role": "user", "content": "What is Deep Learning?"}]])
    system: System | None = Field(None, description="What the model is told first.")
    tools: Items[AnyTool] = Field([])
    tool_choice: ToolChoiceParam | None = None
    thinking: ThinkingParam | None = None
    output_config: OutputConfigParam | None = None

    @classmethod
    def check_counts(cls, data: Any, api: Api) -> None:
        check_tool_count(count(data, "tools"))


class MessagesRequest(CountRequest):
    """A conversation and how to go on with it."""

    max_tokens: U32 = Field(
        description="Most tokens of the answer; where the context has less room, that is the limit.", examples=[20]
    )
    stop_sequences: Items[str] = Field([], description="Stop before one of these.")
    stream: bool = False
    temperature: F32 | None = Field(None, description="0 is greedy; default 1.", examples=[1.0])
    top_p: F32 | None = Field(None, description="0 and 1 are off.", examples=[0.95])
    top_k: I32 | None = Field(None, description="Keep the k most likely tokens; 0 and -1 are off.")

    @classmethod
    def check_counts(cls, data: Any, api: Api) -> None:
        super().check_counts(data, api)
        check_stop_count(count(data, "stop_sequences"), api.config.max_stop_sequences, "stop_sequences")
