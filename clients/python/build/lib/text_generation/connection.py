"""What both clients share: their settings, and the reading of whole answers.

Opens no connection itself. Called by `client` and `async_client`.
"""

from __future__ import annotations

import ssl
from functools import cached_property
from typing import Any

import httpx
from pydantic import BaseModel

from text_generation.errors import UnknownError
from text_generation.streaming import answer_error, parse_answer
from text_generation.types import ChatCompletionChunk, CompletionChunk, Response, StreamResponse
from text_generation.types.base import to_body
from text_generation.version import __version__

GENERATE_PATH = ""  # base_url itself, as every version of this package did
CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"


class Settings:
    """Where the server is and how to talk to it; the attributes may be changed between calls."""

    def __init__(
        self,
        base_url: str,
        headers: dict[str, str] | None = None,
        cookies: dict[str, str] | None = None,
        timeout: float | httpx.Timeout | None = 10,
        *,
        api_key: str | None = None,
    ) -> None:
        """
        Args:
            base_url: Address of the server, such as `http://127.0.0.1:8080`.
            headers: Sent with every request.
            cookies: Sent with every request; read when the first connection is made.
            timeout: Seconds to wait for a connection, and for each piece of an answer; None waits
                for ever. An answer that is not streamed is one piece.
            api_key: Sent as `Authorization: Bearer`, unless `headers` has an Authorization.
        """
        self.base_url = base_url
        self.headers = headers
        self.cookies = cookies
        self.timeout = timeout
        self.api_key = api_key

    @cached_property
    def _ssl_context(self) -> ssl.SSLContext:
        return httpx.create_ssl_context()  # slow to make, so made once

    def pool_options(self) -> dict[str, Any]:
        """Keyword arguments of httpx's clients."""
        return {
            "cookies": self.cookies,
            "follow_redirects": True,
            "verify": self._ssl_context,
            # No cap on connections: a waiting request would time out here instead of queueing at the
            # server. Idle ones are dropped before servers do it (uvicorn: 5 s), which could race.
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=3),
        }

    def request_options(self, path: str, body: BaseModel) -> dict[str, Any]:
        """Keyword arguments of httpx's `post`."""
        headers = {"user-agent": f"text-generation/{__version__}"}
        if self.api_key is not None:
            headers["authorization"] = f"Bearer {self.api_key}"
        headers.update({name.lower(): value for name, value in (self.headers or {}).items()})
        url = self.base_url.rstrip("/") + path if path else self.base_url
        return {"url": url, "json": to_body(body), "headers": headers, "timeout": self.timeout}


def read_json(response: httpx.Response) -> Any:
    """The decoded body of a whole answer; raises what the answer stands for if that is an error."""
    if response.status_code != 200:
        raise answer_error(response.status_code, response.content, response.headers)
    try:
        return response.json()
    except ValueError:
        text = response.text[:200]
        raise UnknownError(f"The server's answer is not JSON: {text}", status_code=200) from None


def read_response(payload: Any) -> Response:
    """The answer of `generate`: `/` gives a list of one, a base_url ending in /generate a bare object."""
    return parse_answer(Response, payload[0] if isinstance(payload, list) and payload else payload)


def is_last_token(event: StreamResponse) -> bool:
    """Whether a `generate_stream` event is the last of its stream."""
    return event.generated_text is not None


def has_finish_reason(event: ChatCompletionChunk | CompletionChunk) -> bool:
    """Whether a choice ended; a stream cut after that counts as whole, as not all servers send [DONE]."""
    return any(choice.finish_reason for choice in event.choices)
