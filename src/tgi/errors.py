"""The closed list of errors a user can meet: class -> HTTP status, TGI `error_type`, OpenAI `type`.

Raised by `serving` and `launcher`, rendered by `api`. `assert` is for our own mistakes; whatever a
user can cause raises from here. Messages are sentences for the user: no traceback, no address.
"""

from __future__ import annotations

from typing import ClassVar

from tgi.shorten import shorten

LONGEST_MESSAGE = 2000
"""Characters of a message; a longer one repeats what its reader has sent."""
ENGINE_HEADER = "x-tgi-engine"


class TgiError(Exception):
    """Base of all errors answered over HTTP.

    `prefix` is put before the message on the wire, as TGI does; `message` stays bare.
    """

    status: int = 500
    error_type: str = "internal"
    openai_type: ClassVar[str] = "server_error"
    prefix: ClassVar[str] = ""
    metric: ClassVar[str | None] = "internal"
    """Label `err` of `tgi_request_failure`; None: no such request is counted at all."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = shorten(message, LONGEST_MESSAGE)
        self.param = param
        """The request field at fault, for OpenAI error objects."""
        self.code = code
        self.headers: dict[str, str] = {}
        """Response headers that go with the error, such as Retry-After."""

    @property
    def text(self) -> str:
        """The message as it goes over the wire."""
        return f"{self.prefix}{self.message}"


class ValidationError(TgiError):
    """A field of the request breaks a rule or a limit (TGI: `Input validation error: ...`)."""

    status = 422
    error_type = "validation"
    openai_type = "invalid_request_error"
    prefix = "Input validation error: "
    metric = "validation"


class MalformedRequestError(TgiError):
    """A body that cannot be read into the route's type, with the status TGI's framework gives it."""

    error_type = "validation"
    openai_type = "invalid_request_error"
    metric = "validation"

    def __init__(self, message: str, status: int = 422, *, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.status = status  # 400 not JSON, 413 too large, 415 content type, 422 wrong shape


class TemplateError(TgiError):
    """The chat template is missing, does not compile, raised, or took too much time or memory."""

    status = 422
    error_type = "template_error"
    openai_type = "invalid_request_error"
    prefix = "Template error: "
    metric = "template"


class ToolError(TgiError):
    """Something about tools or tool choice."""

    status = 422
    error_type = "tool_error"
    openai_type = "invalid_request_error"
    prefix = "Tool error: "
    metric = "validation"


class UnauthorizedError(TgiError):
    """No API key, or a wrong one."""

    status = 401
    error_type = "unauthorized"
    openai_type = "authentication_error"
    metric = None


class ModelNotFoundError(TgiError):
    """`model` names neither the served model nor an adapter."""

    status = 404
    error_type = "model_not_found"
    openai_type = "invalid_request_error"
    metric = "validation"


class OverloadedError(TgiError):
    """All permits are taken, and all places in line (`--max-queue`); answered at once."""

    status = 429
    error_type = "overloaded"
    openai_type = "rate_limit_error"
    metric = "overloaded"

    def __init__(self, message: str = "Model is overloaded") -> None:
        super().__init__(message)


class GenerationError(TgiError):
    """The engine failed this request."""

    status = 424
    error_type = "generation"
    openai_type = "server_error"
    prefix = "Request failed during generation: Server error: "
    metric = "generation"


class EngineLostError(GenerationError):
    """The engine was lost before a token came; a header of the answer says that another server may be asked."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers[ENGINE_HEADER] = "lost"


class IncompleteGenerationError(TgiError):
    """The event stream ended without its last event."""

    status = 500
    error_type = "incomplete_generation"
    openai_type = "server_error"
    metric = "incomplete"

    def __init__(self, message: str = "Incomplete generation") -> None:
        super().__init__(message)


class UnhealthyError(TgiError):
    """`/health` when the engine is gone or does not advance; requests too while it gives no sign of life."""

    status = 503
    error_type = "healthcheck"
    openai_type = "server_error"
    metric = "unhealthy"

    def __init__(self, message: str = "unhealthy") -> None:
        super().__init__(message)


class ShuttingDownError(TgiError):
    """The server drains and takes no new request."""

    status = 503
    error_type = "shutting_down"
    openai_type = "server_error"
    metric = "shutting_down"

    def __init__(self, message: str = "Server is shutting down") -> None:
        super().__init__(message)


class StartupError(Exception):
    """The server cannot start; printed as one sentence, exit status 1."""


class ArgumentError(StartupError):
    """Launcher flags contradict each other (TGI: `ArgumentValidation`)."""


class DownloadError(StartupError):
    """Weights or tokenizer could not be fetched or converted."""


class ModelError(StartupError):
    """The checkpoint cannot be served: unknown family, refused key, missing tensor."""


class PortError(StartupError):
    """The address cannot be listened on (TGI: `WebserverCannotStart`)."""


class EngineDiedError(StartupError):
    """The engine ended while requests were served (TGI: `ShardFailed`)."""


class WebserverError(StartupError):
    """The web server ended without being asked to (TGI: `WebserverFailed`)."""
