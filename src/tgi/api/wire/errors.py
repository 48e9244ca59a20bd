"""How errors look on the wire: TGI's flat object, or OpenAI's nested one with TGI's `error_type` beside it.

Owns bodies and headers of error answers, and which paths speak OpenAI. The errors themselves are
`tgi.errors`.
"""

from __future__ import annotations

import msgspec
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from tgi.api.wire.error_types import ErrorResponse, OpenAIError, OpenAIErrorResponse, UnauthorizedResponse
from tgi.errors import IncompleteGenerationError, MalformedRequestError, TgiError, UnauthorizedError


class InternalError(TgiError):
    """A mistake of ours; its details are in the log and nowhere else."""

    def __init__(self) -> None:
        super().__init__("Internal server error")


class IncompleteStreamError(IncompleteGenerationError):
    """As `incomplete_generation`, on TGI's routes when it happens in a stream."""

    error_type = "incomplete_generation_stream"

    def __init__(self) -> None:
        super().__init__("Incomplete generation stream")


class WordedError(MalformedRequestError):
    """One of the few answers of TGI whose `error_type` is a phrase of its own."""

    def __init__(self, status: int, message: str, error_type: str, *, param: str | None = None) -> None:
        super().__init__(message, status, param=param)
        self.error_type = error_type


def speaks_openai(scope: Scope) -> bool:
    """Whether the caller expects OpenAI's error object; a route may decide, else the path does."""
    decided = scope.get("tgi.openai")
    return scope["path"].startswith("/v1/") if decided is None else decided


def error_content(error: TgiError, *, openai: bool) -> msgspec.Struct:
    """The JSON body, also the payload of an error event."""
    if not openai and isinstance(error, UnauthorizedError):
        return UnauthorizedResponse(
            error.text
        )  # huggingface_hub hides the status behind an `error_type` it does not know
    if not openai:
        return ErrorResponse(error.text, error.error_type)
    return OpenAIErrorResponse(OpenAIError(error.text, error.openai_type, error.param, error.code), error.error_type)


def error_response(error: TgiError, *, openai: bool) -> Response:
    """The whole answer."""
    headers = dict(error.headers)
    if isinstance(error, UnauthorizedError):
        headers["www-authenticate"] = "Bearer"
    body = msgspec.json.encode(error_content(error, openai=openai))
    return Response(body, error.status, headers, media_type="application/json")


async def answer_error(request: HTTPConnection, error: Exception) -> Response:
    """Exception handler of the app for `TgiError`."""
    assert isinstance(error, TgiError)
    return error_response(error, openai=speaks_openai(request.scope))
