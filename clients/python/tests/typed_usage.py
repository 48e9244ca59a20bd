"""Never run: a type checker reads it, and fails where the public types are not what is asserted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import assert_type

from text_generation import AsyncClient, Client
from text_generation.types import (
    ChatComplete,
    ChatCompletionChunk,
    Completion,
    CompletionChunk,
    Message,
    Response,
    StreamResponse,
)

MESSAGES = [Message(role="user", content="Hi")]


def sync(client: Client, streams: bool) -> None:
    assert_type(client.generate("Hi", max_new_tokens=5), Response)
    assert_type(client.generate_stream("Hi", True, 5), Generator[StreamResponse, None, None])
    assert_type(client.chat(MESSAGES, seed=1), ChatComplete)
    assert_type(client.chat(MESSAGES, stream=True), Generator[ChatCompletionChunk, None, None])
    assert_type(client.chat(MESSAGES, stream=streams), ChatComplete | Generator[ChatCompletionChunk, None, None])
    assert_type(client.completion("Hi", stop="x"), Completion)
    assert_type(client.completion(["Hi"], stream=True), Generator[CompletionChunk, None, None])
    client.generate("Hi", max_tokens=5)  # pyright: ignore[reportCallIssue]
    client.generate("Hi", seed="1")  # pyright: ignore[reportArgumentType]


async def asynchronous(client: AsyncClient) -> None:
    assert_type(await client.generate("Hi"), Response)
    assert_type(client.generate_stream("Hi"), AsyncGenerator[StreamResponse, None])
    assert_type(await client.chat(MESSAGES), ChatComplete)
    assert_type(await client.chat(MESSAGES, stream=True), AsyncGenerator[ChatCompletionChunk, None])
    assert_type(await client.completion("Hi"), Completion)
    assert_type(await client.completion("Hi", stream=True), AsyncGenerator[CompletionChunk, None])
