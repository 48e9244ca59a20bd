"""The server's side of a chat: what it serves, and an answer as it comes.

Speaks OpenAI's routes, so that other servers answer, too. Blocking, on the standard library: a Ctrl-C in the middle of
an answer is a KeyboardInterrupt, which closes the connection, and that ends the answer on the server.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tgi.bench.sse import EventReader
from tgi.errors import StartupError
from tgi.untrusted import printable

CONNECT_S = 10.0
ANSWER_S = 3600.0
"""Between two pieces of an answer; a long prompt on a slow machine takes its time."""
MESSAGE_CHARACTERS = 500


class ChatError(StartupError):
    """The server cannot be reached, or refuses; one sentence for the user."""


@dataclass(frozen=True)
class Piece:
    """Something of an answer: text or reasoning, or what is known at its end."""

    text: str = ""
    reasoning: str = ""
    finish: str | None = None
    prompt_tokens: int = 0
    new_tokens: int = 0


class Server:
    """One server by its address."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        """Raises ChatError for what is no address."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query:
            raise ChatError(f"{printable(url)} is no address of a server: give one such as http://127.0.0.1:8080")
        self._host, self._port, self._secure = parts.hostname, port, parts.scheme == "https"
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self.url = f"{parts.scheme}://{parts.netloc}{self._path}"
        self._headers = {"User-Agent": "tgi-chat"}
        if api_key:
            if not api_key.isascii() or not api_key.isprintable():
                raise ChatError("the API key can only hold printable ASCII characters")
            self._headers["Authorization"] = f"Bearer {api_key}"

    def model(self) -> str:
        """The name of the (first) model. Raises ChatError."""
        with closing(self._send("GET", "/v1/models", None, CONNECT_S)) as connection:
            status, body = self._answer(connection)
        try:
            return str(json.loads(body)["data"][0]["id"])
        except (ValueError, KeyError, IndexError, TypeError):
            raise ChatError(
                f"{self.url} lists no model (status {status} of /v1/models): is the address right?"
            ) from None

    def stream(
        self, model: str, messages: list[dict[str, str]], values: dict[str, Any]
    ) -> Generator[Piece, None, None]:
        """The pieces of an answer; leaving it early ends the answer. Raises ChatError."""
        options = {"stream": True, "stream_options": {"include_usage": True}}
        body = json.dumps({"model": model, "messages": messages, **values, **options}).encode()
        with closing(self._send("POST", "/v1/chat/completions", body, ANSWER_S)) as connection:
            response = self._response(connection)
            if response.status != 200:
                raise ChatError(_message(self._read(response), response.status))
            events = EventReader()
            while piece := self._read(response, some=True):
                for data in events.feed(piece):
                    if data == b"[DONE]":
                        return
                    yield from _pieces(data)
        raise ChatError("the server ended the connection before the answer was complete")

    def _send(self, method: str, path: str, body: bytes | None, patience_s: float) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=CONNECT_S, context=context
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_S)
        headers = self._headers | ({"Content-Type": "application/json"} if body else {})
        try:
            connection.connect()
            assert connection.sock is not None
            connection.sock.settimeout(patience_s)
            connection.request(method, self._path + path, body, headers)
        except OSError as error:
            connection.close()
            refused = isinstance(error, ConnectionRefusedError)
            reason = "nothing listens there" if refused else error.strerror or str(error)
            raise ChatError(f"cannot connect to {self.url}: {reason}") from None
        return connection

    def _answer(self, connection: http.client.HTTPConnection) -> tuple[int, bytes]:
        response = self._response(connection)
        body = self._read(response)
        if response.status in (401, 403):
            raise ChatError(f"{self.url} refuses the API key: give the right one with --api-key, or as API_KEY")
        return response.status, body

    def _response(self, connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        try:
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise ChatError(f"{self.url} does not answer: {_reason(error)}") from None

    def _read(self, response: http.client.HTTPResponse, *, some: bool = False) -> bytes:
        try:
            return response.read1(1 << 16) if some else response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ChatError(f"the connection to {self.url} is lost: {_reason(error)}") from None


def _pieces(data: bytes) -> Iterator[Piece]:
    """What an event of a stream says. Raises ChatError for one that reports an error, or is none."""
    try:
        event = json.loads(data)
    except ValueError:
        raise ChatError(f"the server sent what is no event: {printable(data[:100])}") from None
    if "error" in event:
        raise ChatError(_message(data, 200))
    usage = event.get("usage") or {}
    if usage:
        yield Piece(prompt_tokens=usage.get("prompt_tokens", 0), new_tokens=usage.get("completion_tokens", 0))
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        yield Piece(delta.get("content") or "", reasoning, choice.get("finish_reason"))


def _message(body: bytes, status: int) -> str:
    """What an error body says, whatever its form."""
    try:
        value: Any = json.loads(body)
    except ValueError:
        value = body.decode("utf-8", "replace").strip()
    for key in ("error", "message", "detail"):
        if isinstance(value, dict) and key in value:
            value = value[key]
    said = printable(value, MESSAGE_CHARACTERS)
    return said if status == 200 else f"the server answered with status {status}: {said}"


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it takes too long"
    return str(error) or type(error).__name__
