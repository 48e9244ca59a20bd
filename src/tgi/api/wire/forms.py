"""Forms: how each family of routes words its errors and ends its streams.

Owns which form a path has before a route says so, and what differs between forms. Each difference has a name; nobody
asks which form it is.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
from starlette.types import Scope

from tgi.api.wire.error_types import (
    AnthropicError,
    AnthropicErrorResponse,
    ErrorResponse,
    OpenAIError,
    OpenAIErrorResponse,
    UnauthorizedResponse,
)
from tgi.errors import TgiError, UnauthorizedError

FORM = "tgi.form"
"""Where the scope of a request has its form, once the route has decided."""
REQUEST_ID = "tgi.request_id"
"""Where it has its id, where the form has one."""
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Form:
    """The rules of one family of routes."""

    content: Callable[[TgiError, Scope], msgspec.Struct]
    """The JSON body of an error, also the payload of an error event."""
    refuses_streams: bool
    """An error before the first event of a stream is answered with its own status; else streams have 200 whatever
    happens, as in TGI."""
    words_cut_streams: bool = False
    """A stream whose events end without a last one has an `error_type` of its own."""
    event_name: bytes = b""
    """Of an event that holds an error; empty: events have no names."""
    end: bytes = b""
    """What ends a stream, also after an error."""
    error_type: type[msgspec.Struct] = ErrorResponse
    """That of `content`, but for missing keys on TGI's routes."""
    statuses: Mapping[int, int] = field(default_factory=dict)
    """Statuses that are others in this form."""
    request_ids: bool = False
    """Every answer names its request in the header `request-id`."""
    answers_unknown_paths: bool = True
    """Unknown paths and methods get a body."""

    def status(self, error: TgiError) -> int:
        return self.statuses.get(error.status, error.status)


def _tgi(error: TgiError, scope: Scope) -> msgspec.Struct:
    if isinstance(error, UnauthorizedError):
        return UnauthorizedResponse(error.text)  # huggingface_hub hides the status behind a type it does not know
    return ErrorResponse(error.text, error.error_type)


def _openai(error: TgiError, scope: Scope) -> msgspec.Struct:
    return OpenAIErrorResponse(OpenAIError(error.text, error.openai_type, error.param, error.code), error.error_type)


def _anthropic(error: TgiError, scope: Scope) -> msgspec.Struct:
    kind = _ANTHROPIC_TYPES.get(ANTHROPIC.status(error), "api_error")
    if kind == "api_error" and error.openai_type == "invalid_request_error":
        kind = "invalid_request_error"
    too_long = error.code == "context_length_exceeded"
    message = f"prompt is too long: {error.text}" if too_long else error.text  # clients look for these words
    return AnthropicErrorResponse("error", AnthropicError(kind, message), request_id(scope))


_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    529: "overloaded_error",
}


def request_id(scope: Scope) -> str:
    """The id of a request, made when it is first asked for."""
    return scope.setdefault(REQUEST_ID, f"req_{uuid.uuid4().hex}")


TGI = Form(
    _tgi,
    refuses_streams=False,
    words_cut_streams=True,
    answers_unknown_paths=False,
)
OPENAI = Form(
    _openai,
    refuses_streams=True,
    end=DONE,
    error_type=OpenAIErrorResponse,
)
RESPONSES = Form(
    _openai,
    refuses_streams=True,
    event_name=b"error",
    error_type=OpenAIErrorResponse,
)
"""Errors are OpenAI's; events have names, and the last one says by its own that it is."""
ANTHROPIC = Form(
    _anthropic,
    refuses_streams=True,
    event_name=b"error",
    error_type=AnthropicErrorResponse,
    statuses={422: 400, 424: 500, 429: 529},
    request_ids=True,
)
"""Anthropic's API has 400 for a request that breaks a rule, and 529 for a server that has too much to do."""


def form_of_path(path: str) -> Form:
    """The form that a path stands for."""
    for prefix, form in (("/v1/messages", ANTHROPIC), ("/v1/responses", RESPONSES)):
        if path == prefix or path.startswith(f"{prefix}/"):
            return form
    return OPENAI if path.startswith("/v1/") else TGI


def form_of(scope: Scope) -> Form:
    """What the caller expects; a route may decide, else the path does."""
    return scope.get(FORM) or form_of_path(scope["path"])
