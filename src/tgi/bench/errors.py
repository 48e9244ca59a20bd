"""What can go wrong while measuring: before the first figure, and with one request."""

from __future__ import annotations

from tgi.errors import StartupError


class BenchError(StartupError):
    """Nothing can be measured; one sentence for the user."""


class RequestError(Exception):
    """One request failed. `kind` is what failures are counted by, such as `HTTP 429` or `timeout`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class StatusError(RequestError):
    """The server answered with another status than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}", message)
        self.status = status
