"""`AsyncClient`: the asynchronous client, one HTTP call per method.

Owns its connections. Arguments are in `arguments`, answers in `types`, the decoding of streams and
errors in `streaming`. Uses httpx alone, so it runs under asyncio and trio.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
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

T = TypeVar("T", bound=BaseModel)


class AsyncClient(Settings):
    """Asynchronous client. Connections are pooled inside `async with`; outside, each call makes its
    own, so that one object may be used from several event loops.

    Example:
        async with AsyncClient("http://127.0.0.1:8080") as client:
            response = await client.generate("Why is the sky blue?", max_new_tokens=50)
            async for event in client.generate_stream("Why is the sky blue?"):
                print(event.token.text, end="")
            async for chunk in await client.chat(messages, stream=True):
                print(chunk.choices[0].delta.content, end="")
    """

    _pool: httpx.AsyncClient | None = None

    @accepts(generate_arguments)
    async def generate(self, request: Request) -> Response:
        """Continue a text."""
        return read_response(await self._post(GENERATE_PATH, request))

    @accepts(generate_stream_arguments)
    def generate_stream(self, request: Request) -> AsyncGenerator[StreamResponse, None]:
        """Continue a text, token by token."""
        return self._stream(GENERATE_PATH, request, StreamResponse, is_last_token)

    @overload
    async def chat(
        self,
        messages: Sequence[Message | dict[str, Any]],
        *,
        stream: Literal[False] = ...,
        **options: Unpack[ChatOptions],
    ) -> ChatComplete: ...
    @overload
    async def chat(
        self, messages: Sequence[Message | dict[str, Any]], *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> AsyncGenerator[ChatCompletionChunk, None]: ...
    @overload
    async def chat(
        self, messages: Sequence[Message | dict[str, Any]], *args: Any, **options: Any
    ) -> ChatComplete | AsyncGenerator[ChatCompletionChunk, None]: ...
    @accepts(chat_arguments)
    async def chat(self, request: ChatRequest) -> ChatComplete | AsyncGenerator[ChatCompletionChunk, None]:
        """Answer a conversation, whole or (`stream=True`) as an asynchronous iterator of chunks."""
        if request.stream:
            return self._stream(CHAT_PATH, request, ChatCompletionChunk, has_finish_reason)
        return parse_answer(ChatComplete, await self._post(CHAT_PATH, request))

    @overload
    async def completion(
        self, prompt: Prompt, *, stream: Literal[False] = ..., **options: Unpack[CompletionOptions]
    ) -> Completion: ...
    @overload
    async def completion(
        self, prompt: Prompt, *, stream: Literal[True], **options: Unpack[CompletionOptions]
    ) -> AsyncGenerator[CompletionChunk, None]: ...
    @overload
    async def completion(
        self, prompt: Prompt, *args: Any, **options: Any
    ) -> Completion | AsyncGenerator[CompletionChunk, None]: ...
    @accepts(completion_arguments)
    async def completion(self, request: CompletionRequest) -> Completion | AsyncGenerator[CompletionChunk, None]:
        """Continue one or several texts, whole or (`stream=True`) as an asynchronous iterator of chunks."""
        if request.stream:
            return self._stream(COMPLETION_PATH, request, CompletionChunk, has_finish_reason)
        return parse_answer(Completion, await self._post(COMPLETION_PATH, request))

    @asynccontextmanager
    async def _connections(self) -> AsyncGenerator[httpx.AsyncClient, None]:
        if self._pool is not None:
            yield self._pool
        else:
            async with httpx.AsyncClient(**self.pool_options()) as pool:
                yield pool

    async def _post(self, path: str, request: BaseModel) -> Any:
        async with self._connections() as pool:
            return read_json(await pool.post(**self.request_options(path, request)))

    async def _stream(
        self, path: str, request: BaseModel, event_type: type[T], is_last: Callable[[T], bool]
    ) -> AsyncGenerator[T, None]:
        reader = StreamReader(event_type, is_last)
        async with (
            self._connections() as pool,
            pool.stream("POST", **self.request_options(path, request)) as response,
        ):
            if response.status_code != 200:
                raise answer_error(response.status_code, await response.aread(), response.headers)
            async for chunk in response.aiter_bytes():
                for event in reader.feed(chunk):
                    yield event
            for event in reader.close():
                yield event

    async def aclose(self) -> None:
        """Close the connections of an `async with`."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    async def __aenter__(self) -> Self:
        if self._pool is None:
            self._pool = httpx.AsyncClient(**self.pool_options())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
