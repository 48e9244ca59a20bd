"""Every error a server's answer can turn into, and the mapping from status and body to it.

Owns the classes and `parse_error`; reads no network. Errors of the connection itself (refused,
timed out) are httpx's and pass through. Called by `streaming` and the clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast


class TextGenerationError(Exception):
    """Base of all errors below."""

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        error_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        """HTTP status; None for an error found on this side. An error inside a stream came under 200."""
        self.error_type = error_type
        """The server's machine name of the error, where it gave one."""
        self.headers: dict[str, str] = {name.lower(): value for name, value in (headers or {}).items()}
        """Response headers, names in lower case."""

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before trying again, from the Retry-After header (seconds or a date)."""
        value = self.headers.get("retry-after")
        if value is None:
            return None
        try:
            return max(0.0, float(value))
        except ValueError:
            pass  # not a number of seconds, so a date
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())


class ValidationError(TextGenerationError):
    """A parameter breaks a rule, found here or by the server."""


class GenerationError(TextGenerationError):
    """The server failed while generating."""


class OverloadedError(TextGenerationError):
    """The server has no free slot; see `retry_after`."""


class IncompleteGenerationError(TextGenerationError):
    """The generation ended without its last event."""


class BadRequestError(TextGenerationError):
    """Status 400."""


class ShardNotReadyError(TextGenerationError):
    """Status 403 or 424 without a more precise type."""


class ShardTimeoutError(TextGenerationError):
    """Status 504."""


class NotFoundError(TextGenerationError):
    """Status 404."""


class RateLimitExceededError(TextGenerationError):
    """Status 429 that is not the server's own overload answer."""


class NotSupportedError(TextGenerationError):
    """The Inference API does not serve this model with text-generation-inference."""

    def __init__(self, model_id: str) -> None:
        super().__init__(f"Model `{model_id}` is not available for inference with this client.")


class UnknownError(TextGenerationError):
    """Anything else."""


class AuthenticationError(UnknownError):
    """Status 401: no API key, or a wrong one."""


class ServiceUnavailableError(UnknownError):
    """Status 503: the server is starting, draining or unhealthy."""


_BY_ERROR_TYPE: dict[str, type[TextGenerationError]] = {
    "validation": ValidationError,
    "template_error": ValidationError,
    "tool_error": ValidationError,
    "generation": GenerationError,
    "incomplete_generation": IncompleteGenerationError,
    "incomplete_generation_stream": IncompleteGenerationError,
    "overloaded": OverloadedError,
}
# TGI reports every error inside an OpenAI stream with code 422; only the message tells them apart.
_BY_MESSAGE: dict[str, type[TextGenerationError]] = {
    "Input validation error": ValidationError,
    "Model is overloaded": OverloadedError,
    "Request failed during generation": GenerationError,
    "Incomplete generation": IncompleteGenerationError,
}
_BY_STATUS: dict[int, type[TextGenerationError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: ShardNotReadyError,
    404: NotFoundError,
    422: ValidationError,
    424: ShardNotReadyError,
    429: RateLimitExceededError,
    503: ServiceUnavailableError,
    504: ShardTimeoutError,
}
# Inside a stream the status is 200, and OpenAI's own type is all there is.
_BY_OPENAI_TYPE: dict[str, type[TextGenerationError]] = {
    "invalid_request_error": ValidationError,
    "rate_limit_error": OverloadedError,
    "authentication_error": AuthenticationError,
    "server_error": GenerationError,
}


def parse_error(status_code: int, payload: Any, *, headers: Mapping[str, str] | None = None) -> TextGenerationError:
    """The exception for an answer with `status_code` and body `payload`.

    `payload` is decoded JSON (TGI's `{"error": str, "error_type"}`, an OpenAI error object, or
    anything) or the text of a body that is not JSON, which may be empty.
    """
    message, error_type, openai_type, status = _read(status_code, payload)
    error = _BY_ERROR_TYPE.get(error_type or "")
    if error is None and openai_type is not None:
        error = next((kind for start, kind in _BY_MESSAGE.items() if message.startswith(start)), None)
    if error is None:
        error = _BY_STATUS.get(status)
    if error is None:
        error = _BY_OPENAI_TYPE.get(openai_type or "", UnknownError)
    return error(message, status_code=status_code, error_type=error_type or openai_type or None, headers=headers)


def _read(status_code: int, payload: Any) -> tuple[str, str | None, str | None, int]:
    """(message, error_type, OpenAI type or None without an OpenAI object, status) of any body."""
    if not isinstance(payload, dict):
        text = payload.strip() if isinstance(payload, str) else str(payload)
        if text[:1] == "<":  # a proxy's HTML page says nothing worth showing
            text = ""
        return text[:500] or f"HTTP status {status_code}", None, None, status_code
    body = cast("dict[str, Any]", payload)
    error_type = body.get("error_type")
    error = body.get("error", body.get("message", body.get("detail")))
    if not isinstance(error, dict):
        message = f"HTTP status {status_code}" if error is None else str(error)
        return message, error_type, None, status_code
    details = cast("dict[str, Any]", error)
    code = details.get("http_status_code", details.get("code"))
    status = code if status_code == 200 and isinstance(code, int) else status_code
    message = str(details.get("message") or f"HTTP status {status}")
    return message, error_type, str(details.get("type") or ""), status
