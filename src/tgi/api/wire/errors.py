"""Answers that are errors, in the form of their route.

Owns their headers, and the few errors that only the API makes. Their bodies are `forms`'s, the errors themselves are
`tgi.errors`.
"""

from __future__ import annotations

import msgspec
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from tgi.api.wire.forms import form_of, request_id
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


def error_response(error: TgiError, scope: Scope) -> Response:
    """The whole answer."""
    form = form_of(scope)
    headers = dict(error.headers)
    if isinstance(error, UnauthorizedError):
        headers["www-authenticate"] = "Bearer"
    if form.request_ids:
        headers["request-id"] = request_id(scope)
    body = msgspec.json.encode(form.content(error, scope))
    return Response(body, form.status(error), headers, media_type="application/json")


async def answer_error(request: HTTPConnection, error: Exception) -> Response:
    """Exception handler of the app for `TgiError`."""
    assert isinstance(error, TgiError)
    return error_response(error, request.scope)
