"""`Client`: the synchronous client, one HTTP call per method.

Owns its connections. Arguments are in `arguments`, answers in `types`, the decoding of streams and
errors in `streaming`. `async_client` is its twin; a test compares the two.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, Self, TypeVar, Unpack, overload

import httpx
from pydantic import BaseModel

from text_generation.arguments import (
    accepts,
    chat_arguments,
    completion_arguments,
    generate_arguments,
    generate_stream_arguments,
)
from text_generation.async_client import AsyncClient
from text_generation.connection import (
    CHAT_PATH,
    COMPLETION_PATH,
    GENERATE_PATH,
    Settings,
    has_finish_reason,
    is_last_token,
    read_json,
    read_response,
)
from text_generation.options import ChatOptions, CompletionOptions
from text_generation.streaming import StreamReader, answer_error, parse_answer
from text_generation.types import (
    ChatComplete,
    ChatCompletionChunk,
    ChatRequest,
    Completion,
    CompletionChunk,
    CompletionRequest,
    Message,
    Prompt,
    Request,
    Response,
    StreamResponse,
)

__all__ = ["AsyncClient", "Client"]

T = TypeVar("T", bound=BaseModel)


class Client(Settings):
    """Synchronous client. Thread-safe; connections are pooled until `close` or the end of a `with`.

    Example:
        with Client("http://127.0.0.1:8080") as client:
            print(client.generate("Why is the sky blue?", max_new_tokens=50).generated_text)
            for event in client.generate_stream("Why is the sky blue?"):
                print(event.token.text, end="")
    """

    def __init__(
        self,
        base_url: str,
        headers: dict[str, str] | None = None,
        cookies: dict[str, str] | None = None,
        timeout: float | httpx.Timeout | None = 10,
        *,
        api_key: str | None = None,
    ) -> None:
        super().__init__(base_url, headers, cookies, timeout, api_key=api_key)
        self._pool: httpx.Client | None = None
        self._pool_lock = threading.Lock()

    __init__.__doc__ = Settings.__init__.__doc__

    @accepts(generate_arguments)
    def generate(self, request: Request) -> Response:
        """Continue a text."""
        return read_response(self._post(GENERATE_PATH, request))

    @accepts(generate_stream_arguments)
    def generate_stream(self, request: Request) -> Generator[StreamResponse, None, None]:
        """Continue a text, token by token."""
        return self._stream(GENERATE_PATH, request, StreamResponse, is_last_token)

    @overload
    def chat(
        self,
        messages: Sequence[Message | dict[str, Any]],
        *,
        stream: Literal[False] = ...,
        **options: Unpack[ChatOptions],
    ) -> ChatComplete: ...
    @overload
    def chat(
        self, messages: Sequence[Message | dict[str, Any]], *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> Generator[ChatCompletionChunk, None, None]: ...
    @overload
    def chat(
        self, messages: Sequence[Message | dict[str, Any]], *args: Any, **options: Any
    ) -> ChatComplete | Generator[ChatCompletionChunk, None, None]: ...
    @accepts(chat_arguments)
    def chat(self, request: ChatRequest) -> ChatComplete | Generator[ChatCompletionChunk, None, None]:
        """Answer a conversation, whole or (`stream=True`) as an iterator of chunks."""
        if request.stream:
            return self._stream(CHAT_PATH, request, ChatCompletionChunk, has_finish_reason)
        return parse_answer(ChatComplete, self._post(CHAT_PATH, request))

    @overload
    def completion(
        self, prompt: Prompt, *, stream: Literal[False] = ..., **options: Unpack[CompletionOptions]
    ) -> Completion: ...
    @overload
    def completion(
        self, prompt: Prompt, *, stream: Literal[True], **options: Unpack[CompletionOptions]
    ) -> Generator[CompletionChunk, None, None]: ...
    @overload
    def completion(
        self, prompt: Prompt, *args: Any, **options: Any
    ) -> Completion | Generator[CompletionChunk, None, None]: ...
    @accepts(completion_arguments)
    def completion(self, request: CompletionRequest) -> Completion | Generator[CompletionChunk, None, None]:
        """Continue one or several texts, whole or (`stream=True`) as an iterator of chunks."""
        if request.stream:
            return self._stream(COMPLETION_PATH, request, CompletionChunk, has_finish_reason)
        return parse_answer(Completion, self._post(COMPLETION_PATH, request))

    def _connections(self) -> httpx.Client:
        with self._pool_lock:
            if self._pool is None:
                self._pool = httpx.Client(**self.pool_options())
                # Callers of earlier versions never close; their sockets go with the object.
                weakref.finalize(self, self._pool.close)
            return self._pool

    def _post(self, path: str, request: BaseModel) -> Any:
        return read_json(self._connections().post(**self.request_options(path, request)))

    def _stream(
        self, path: str, request: BaseModel, event_type: type[T], is_last: Callable[[T], bool]
    ) -> Generator[T, None, None]:
        reader = StreamReader(event_type, is_last)
        with self._connections().stream("POST", **self.request_options(path, request)) as response:
            if response.status_code != 200:
                raise answer_error(response.status_code, response.read(), response.headers)
            for chunk in response.iter_bytes():
                yield from reader.feed(chunk)
            yield from reader.close()

    def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        with self._pool_lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
