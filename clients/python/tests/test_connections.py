"""Connections: what is sent with every request, reuse, threads, several event loops, failures."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from conftest import Talk
from fake_server import Answer, FakeServer, events, json_answer, stream_answer

from text_generation import AsyncClient, Client, __version__

PAYLOAD = [{"generated_text": "ok", "details": {"finish_reason": "length", "generated_tokens": 1}}]
TOKEN = {"token": {"id": 1, "text": "a", "logprob": None, "special": False}}


def test_headers_cookies_and_key(server: FakeServer, talk: Talk) -> None:
    server.answers["/"] = json_answer(PAYLOAD)
    talk("generate", "Hi", client_options={"headers": {"X-Test": "1"}, "cookies": {"a": "b"}, "api_key": "secret"})
    headers = server.received[0].headers
    assert headers["x-test"] == "1"
    assert headers["cookie"] == "a=b"
    assert headers["authorization"] == "Bearer secret"
    assert headers["user-agent"] == f"text-generation/{__version__}"


def test_a_given_authorization_header_wins(server: FakeServer, talk: Talk) -> None:
    server.answers["/"] = json_answer(PAYLOAD)
    talk("generate", "Hi", client_options={"headers": {"Authorization": "Basic x"}, "api_key": "secret"})
    assert server.received[0].headers["authorization"] == "Basic x"


def test_trailing_slash_and_path_in_the_address(server: FakeServer, talk: Talk) -> None:
    chat: dict[str, Any] = {"choices": []}
    server.answers |= {"/models/x": json_answer(PAYLOAD), "/v1/chat/completions": json_answer(chat)}
    talk("generate", "Hi", client_options={"base_url": f"{server.url}/models/x"})
    talk("chat", [{"role": "user", "content": "Hi"}], client_options={"base_url": f"{server.url}/"})
    assert [received.path for received in server.received] == ["/models/x", "/v1/chat/completions"]


def test_redirect_is_followed(server: FakeServer, talk: Talk) -> None:
    server.answers |= {"/": Answer(307, headers={"location": "/moved"}), "/moved": json_answer(PAYLOAD)}
    assert talk("generate", "Hi").generated_text == "ok"
    assert server.received[1].body["inputs"] == "Hi"


def test_connection_is_reused_also_after_a_stream(server: FakeServer) -> None:
    def answer(received: Any) -> Answer:
        return (
            stream_answer(events({**TOKEN, "generated_text": "a"})) if received.body["stream"] else json_answer(PAYLOAD)
        )

    server.answers["/"] = answer
    with Client(server.url) as client:
        client.generate("Hi")
        assert len(list(client.generate_stream("Hi"))) == 1
        client.generate("Hi")

    async def run() -> None:
        async with AsyncClient(server.url) as client:
            await client.generate("Hi")
            assert len([event async for event in client.generate_stream("Hi")]) == 1
            await client.generate("Hi")

    asyncio.run(run())
    connections = [received.connection for received in server.received]
    assert len(set(connections[:3])) == 1
    assert len(set(connections[3:])) == 1


def test_stream_left_early_frees_the_client(server: FakeServer) -> None:
    server.answers["/"] = lambda received: stream_answer(events(*[TOKEN] * 50, {**TOKEN, "generated_text": "a"}))
    with Client(server.url) as client:
        for _ in range(3):
            stream = client.generate_stream("Hi")
            assert next(stream).token.text == "a"
            stream.close()
        assert len(list(client.generate_stream("Hi"))) == 51


def test_client_works_without_with_and_after_close(server: FakeServer) -> None:
    server.answers["/"] = json_answer(PAYLOAD)
    client = Client(server.url)
    client.generate("Hi")
    client.close()
    client.close()
    client.generate("Hi")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del client  # an unclosed socket would warn here
        gc.collect()


def test_one_client_in_many_threads(server: FakeServer) -> None:
    server.answers["/"] = lambda received: json_answer([{**PAYLOAD[0], "generated_text": received.body["inputs"]}])
    prompts = [str(number) for number in range(100)]
    with Client(server.url) as client, ThreadPoolExecutor(32) as threads:
        texts = [response.generated_text for response in threads.map(client.generate, prompts)]
    assert texts == prompts


def test_one_async_client_in_several_loops(server: FakeServer) -> None:
    server.answers["/"] = json_answer(PAYLOAD)
    client = AsyncClient(server.url)
    for _ in range(2):
        assert asyncio.run(client.generate("Hi")).generated_text == "ok"


def test_more_requests_at_once_than_httpx_allows_by_default(server: FakeServer) -> None:
    # 128 answers that all wait for the last request: a cap on connections (httpx: 100) would never end.
    barrier = threading.Barrier(128, timeout=20)

    def answer(_: Any) -> Answer:
        barrier.wait()
        return json_answer(PAYLOAD)

    server.answers["/"] = answer

    async def run() -> None:
        async with AsyncClient(server.url, timeout=30) as client:
            await asyncio.gather(*(client.generate("Hi") for _ in range(128)))

    asyncio.run(run())
    assert len(server.received) == 128


def test_wrong_argument_is_raised_where_it_is_awaited(server: FakeServer) -> None:
    async def run() -> list[Any]:
        client = AsyncClient(server.url)
        return await asyncio.gather(client.generate(""), return_exceptions=True)

    assert "cannot be empty" in str(asyncio.run(run())[0])


def test_errors_of_the_connection_pass_through(talk: Talk) -> None:
    with pytest.raises(httpx.ConnectError):
        talk("generate", "Hi", client_options={"base_url": "http://127.0.0.1:1"})


def test_answer_cut_off_by_the_server(server: FakeServer, talk: Talk) -> None:
    server.answers["/"] = stream_answer(events(TOKEN), cut=True)
    with pytest.raises(httpx.RemoteProtocolError):
        talk("generate_stream", "Hi")


def test_timeout(server: FakeServer, talk: Talk) -> None:
    release = threading.Event()

    def answer(_: Any) -> Answer:
        release.wait(10)
        return json_answer(PAYLOAD)

    server.answers["/"] = answer
    try:
        with pytest.raises(httpx.ReadTimeout):
            talk("generate", "Hi", client_options={"timeout": 0.05})
    finally:
        release.set()
