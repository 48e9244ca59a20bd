"""Error bodies as they go over the wire: TGI's flat one, OpenAI's with TGI's `error_type` beside it, and Anthropic's.

Made by `forms`, shown in `openapi`.
"""

from __future__ import annotations

import msgspec


class ErrorResponse(msgspec.Struct):
    """What went wrong, for people and for programs."""

    error: str
    error_type: str


class UnauthorizedResponse(msgspec.Struct):
    """That the key is missing or wrong; the status is what programs look at."""

    error: str


class OpenAIError(msgspec.Struct):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    """The field at fault."""
    code: str | None


class OpenAIErrorResponse(msgspec.Struct):
    """What went wrong, in OpenAI's form; `error_type` is TGI's."""

    error: OpenAIError
    error_type: str


class AnthropicError(msgspec.Struct):
    """Anthropic's error object."""

    type: str
    message: str


class AnthropicErrorResponse(msgspec.Struct):
    """What went wrong, in Anthropic's form."""

    type: str
    error: AnthropicError
    request_id: str
