"""Items of the input of `/v1/responses`: messages, calls, their results, reasoning.

Owns their names and types, also of those that come from a stored response. What they become is `convert`'s.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, TypeAdapter

from tgi.api.wire.fields import Items, RequestModel, json_kind

TEXTS = frozenset({"input_text", "output_text", "text", "reasoning_text", "summary_text"})


class ResponseTextPart(RequestModel):
    """A piece of text."""

    type: Literal["input_text", "output_text", "text", "reasoning_text", "summary_text"]
    text: str
    annotations: Any = None
    """Those of an answer that is sent back; there are none."""
    logprobs: Any = None


class ResponseRefusalPart(RequestModel):
    """What the model said in place of an answer."""

    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        return self.refusal


class ResponseOtherPart(RequestModel):
    """An image, a file or the like: refused by the name of its type."""

    type: str


def _part_kind(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        return None
    return "text" if kind in TEXTS else kind if kind == "refusal" else "other"


ResponsePart = Annotated[
    Annotated[ResponseTextPart, Tag("text")]
    | Annotated[ResponseRefusalPart, Tag("refusal")]
    | Annotated[ResponseOtherPart, Tag("other")],
    Discriminator(
        _part_kind,
        custom_error_type="part",
        custom_error_message="expected a content part, an object with a `type`",
    ),
]
ResponseContent = Annotated[
    Annotated[str, Tag("string")] | Annotated[Items[ResponsePart], Tag("array")],
    Discriminator(
        json_kind,
        custom_error_type="content",
        custom_error_message="expected a string or an array of content parts",
    ),
]


class ResponseItemBase(RequestModel):
    """What items have in common; an answer's have both, and keep them when they are sent back."""

    id: str | None = None
    status: str | None = None


class ResponseInputMessage(ResponseItemBase):
    """One turn of a conversation."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"] = Field(examples=["user"])
    content: ResponseContent = Field(examples=["What is Deep Learning?"])


class ResponseInputCall(ResponseItemBase):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class ResponseInputCallOutput(ResponseItemBase):
    """What a tool answered."""

    type: Literal["function_call_output"]
    call_id: str
    output: ResponseContent


class ResponseInputReasoning(ResponseItemBase):
    """What the model thought in an earlier turn; `content` counts, else `summary`."""

    type: Literal["reasoning"]
    summary: Items[ResponsePart] = Field([])
    content: Items[ResponsePart] | None = None


class ResponseItemReference(RequestModel):
    """An item of a stored response."""

    type: Literal["item_reference"]
    id: str


class ResponseOtherItem(RequestModel):
    """A call of one of OpenAI's tools or the like; noted in `x-tgi-ignored`."""

    type: str


_KNOWN = frozenset({"message", "function_call", "function_call_output", "reasoning", "item_reference"})


def _item_kind(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    kind = value.get("type")
    if kind is None and "role" in value:
        return "message"
    return (kind if kind in _KNOWN else "other") if isinstance(kind, str) else None


ResponseInputItem = Annotated[
    Annotated[ResponseInputMessage, Tag("message")]
    | Annotated[ResponseInputCall, Tag("function_call")]
    | Annotated[ResponseInputCallOutput, Tag("function_call_output")]
    | Annotated[ResponseInputReasoning, Tag("reasoning")]
    | Annotated[ResponseItemReference, Tag("item_reference")]
    | Annotated[ResponseOtherItem, Tag("other")],
    Discriminator(
        _item_kind,
        custom_error_type="item",
        custom_error_message="expected an input item, an object with a `type` or a `role`",
    ),
]
STORED: TypeAdapter[list[ResponseInputItem]] = TypeAdapter(list[ResponseInputItem])
"""Reads items that were kept."""
