"""Bodies of `/v1/embeddings`.

Owns their names and types, and the four forms of `input`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from tgi.api.openai.types import NAMELESS_MODELS
from tgi.api.state import Api
from tgi.api.wire.fields import U32, RequestModel
from tgi.serving.embeddings import MAX_INPUTS, check_count

MAX_TOKEN_ID = 2**32 - 1


def _are_ids(value: Any) -> bool:
    if not isinstance(value, list) or not set(map(type, value)) <= {int}:  # also refuses true, which is an int
        return False
    return not value or (min(value) >= -MAX_TOKEN_ID and max(value) <= MAX_TOKEN_ID)


def _are_inputs(value: Any) -> Any:
    """A text, token ids, or a list of either; their number and that of their tokens are checked elsewhere."""
    if isinstance(value, str) or _are_ids(value):
        return value
    if isinstance(value, list) and (all(isinstance(one, str) for one in value) or all(map(_are_ids, value))):
        return value
    raise PydanticCustomError("input", "expected a string, an array of strings, token ids or arrays of token ids")


Inputs = Annotated[
    Any,
    BeforeValidator(_are_inputs),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "maxItems": MAX_INPUTS},
                {"type": "array", "items": {"type": "integer"}},
                {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}, "maxItems": MAX_INPUTS},
            ]
        }
    ),
]


class EmbeddingRequest(RequestModel):
    """Texts whose vectors are wanted."""

    input: Inputs = Field(description=f"A text, or up to {MAX_INPUTS}, as text or token ids.", examples=["Hello"])
    model: str | None = Field(None, description="Name of the model; any name is served by the one model there is.")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="`base64`: the numbers as float32 in little-endian order."
    )
    dimensions: U32 | None = Field(
        None, description="Keep this many numbers of each vector, and make its length 1 again.", examples=[256]
    )
    add_special_tokens: bool = Field(True, description="Put the tokenizer's special tokens around texts.")

    @classmethod
    def check_counts(cls, data: Any, api: Api) -> None:
        given = data.get("input") if isinstance(data, dict) else None
        if isinstance(given, list) and (not given or isinstance(given[0], (str, list))):
            check_count(len(given))

    @property
    def single(self) -> bool:
        """Whether `input` is one text, and not a list of texts."""
        return isinstance(self.input, str) or isinstance(self.input[0], int)

    @property
    def inputs(self) -> list[str | list[int]]:
        return [self.input] if self.single else self.input

    def check_model(self, served: tuple[str, ...], ignored: list[str]) -> None:
        """As on the other routes: a name that means something else is noted."""
        if self.model is not None and self.model not in (*served, *NAMELESS_MODELS):
            ignored.append("model")


class EmbeddingUsage(msgspec.Struct):
    """Tokens of all texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingObject(msgspec.Struct):
    """The vector of one text."""

    object: str
    index: int
    embedding: list[float] | str
    """Numbers, or base64 of them as float32 in little-endian order."""


class EmbeddingList(msgspec.Struct):
    """The vectors, in the order of the texts."""

    object: str
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage
