"""`/tokenize`, `/chat_tokenize` and `/detokenize` do work, so they are admitted, bounded and given up like others."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.types import Message

from tests.api.fake import TOKENIZER, FakeEngine, build_app, serve
from tests.api.test_wire import connection, request
from tgi.api.wire import answer
from tgi.serving import tokenizer_threads
from tgi.serving.tokenizer import Tokenizer

ROUTES = ["/tokenize", "/chat_tokenize"]


def body(path: str, text: str) -> dict[str, Any]:
    return {"inputs": text} if path == "/tokenize" else {"messages": [{"role": "user", "content": text}]}


class Slow:
    """Tokenising waits for `release`; `begun` lists the lengths of texts whose turn came."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.begun: list[int] = []
        self._spans = Tokenizer.spans

    def spans(self, tokenizer: Tokenizer, text: str, add_special_tokens: bool = True) -> Any:
        self.begun.append(len(text))
        if len(text) > 10:
            assert self.release.wait(20)
        return self._spans(tokenizer, text, add_special_tokens)

    async def until_begun(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.begun) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    slow = Slow()
    monkeypatch.setattr(Tokenizer, "spans", lambda *arguments, **more: slow.spans(*arguments, **more))
    yield slow
    slow.release.set()


def client_of(app: Starlette) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize("path", ROUTES)
async def test_it_takes_a_permit(path: str, slow: Slow) -> None:
    app = build_app(FakeEngine(), max_concurrent_requests=1)
    async with client_of(app) as client:
        first = asyncio.create_task(client.post(path, json=body(path, "x" * 20)))
        await slow.until_begun(1)
        for other in (*ROUTES, "/generate"):
            refused = await client.post(other, json=body(other, "x"))
            assert (refused.status_code, refused.json()["error_type"]) == (429, "overloaded")
            assert "retry-after" in refused.headers
        slow.release.set()
        assert (await first).status_code == 200
        assert app.state.api.permits.taken == 0


@pytest.mark.parametrize("path", ROUTES)
async def test_the_drain_waits_for_it_and_admits_no_more(path: str, slow: Slow) -> None:
    app = build_app(FakeEngine())
    async with client_of(app) as client:
        first = asyncio.create_task(client.post(path, json=body(path, "x" * 20)))
        await slow.until_begun(1)
        assert not await app.state.drain(0.01)
        refused = await client.post(path, json=body(path, "x"))
        assert (refused.status_code, refused.json()["error_type"]) == (503, "shutting_down")
        slow.release.set()
        assert await app.state.drain(10.0)
        assert (await first).status_code == 200


@pytest.mark.parametrize("path", ROUTES)
async def test_who_leaves_is_not_tokenised_for(path: str, slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten that leave: the one that was begun ends, the others never begin; their permits are back at once."""
    monkeypatch.setattr(tokenizer_threads, "LONG_TEXT", 15)
    app = build_app(FakeEngine())
    permits = app.state.api.permits
    async with serve(app) as address:
        for number in range(10):
            async with connection(address) as (_, writer):
                writer.write(request(path, body(path, "x" * 20)))
                async with asyncio.timeout(10):
                    while permits.taken != 1:  # noqa: ASYNC110
                        await asyncio.sleep(0.005)
                if number == 0:
                    await slow.until_begun(1)
            await asyncio.wait_for(permits.drained(), 10)
        async with httpx.AsyncClient(base_url=address) as client:
            answer = await client.post("/tokenize", json={"inputs": "x"})  # does not wait behind them
            assert [one["id"] for one in answer.json()] == TOKENIZER.encode("x")
            assert len(slow.begun) == 2
            slow.release.set()
            assert (await client.post(path, json=body(path, "y" * 20))).status_code == 200
        assert len(slow.begun) == 3


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("text", ["", "xyz", "é☃\U0001f600 ", "<s>a</s>"])
@pytest.mark.parametrize("times", [1, 1500])
async def test_long_answers_are_the_same_as_short_ones(path: str, text: str, times: int) -> None:
    """One token a byte: several tokens share a character, and with it its place."""
    async with client_of(build_app(FakeEngine())) as client:
        response = await client.post(path, json=body(path, text * times))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    tokens, prompt = response.json(), text * times
    if path == "/chat_tokenize":
        assert list(tokens) == ["tokenize_response", "templated_text"]
        tokens, prompt = tokens["tokenize_response"], tokens["templated_text"]
        assert text * times in prompt
    else:
        assert tokens.pop(0) == {"id": 256, "text": "", "start": 0, "stop": 0}
    assert [one["id"] for one in tokens] == TOKENIZER.encode(prompt, add_special_tokens=False)
    data = prompt.encode()
    assert [one["text"] for one in tokens] == [data[one["start"] : one["stop"]].decode() for one in tokens]
    covered = {place for one in tokens for place in range(one["start"], one["stop"])}
    assert covered == set(range(len(data)))


class Reader:
    """An ASGI client that takes the answer only when told; `taken` counts the bytes it was given."""

    def __init__(self, path: str, content: Any) -> None:
        self.scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "query_string": b""}
        self.scope |= {"http_version": "1.1", "scheme": "http", "headers": [(b"content-type", b"application/json")]}
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.messages.put_nowait({"type": "http.request", "body": json.dumps(content).encode()})
        self.open = asyncio.Event()
        self.taken = 0
        self.whole = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            await self.open.wait()
            self.taken += len(message["body"])
            self.whole = not message.get("more_body", False)


LARGE = [
    ("/tokenize", {"inputs": "x" * 5_000}),
    ("/chat_tokenize", {"messages": [{"role": "user", "content": "x" * 5_000}]}),
    ("/generate", {"inputs": "x" * 200, "parameters": {"return_full_text": True}}),
    ("/v1/completions", {"prompt": ["x" * 200, "y" * 200], "echo": True}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "n": 8}),
    ("/vertex", {"instances": [{"inputs": "x"}] * 8}),
    (
        "/v2/models/m/versions/1/infer",
        {
            "id": "x",
            "inputs": [{"name": "i", "shape": [1], "datatype": "BYTES", "data": [120]}],
            "outputs": [{"name": "o"}],
        },
    ),
]


@pytest.mark.parametrize(("path", "content"), LARGE, ids=[path for path, _ in LARGE])
async def test_a_large_answer_holds_its_permit_until_it_is_taken(
    path: str, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever does not read is given up, whatever the route: what waits for readers is bounded by the permits."""
    monkeypatch.setattr(answer, "PIECE_BYTES", 50)
    app = build_app(FakeEngine())
    permits = app.state.api.permits
    reader = Reader(path, content)
    task = asyncio.create_task(app(reader.scope, reader.messages.get, reader.send))
    await asyncio.sleep(0.3)
    assert (permits.taken > 0, reader.taken) == (True, 0)
    reader.open.set()
    await asyncio.wait_for(task, 10)
    assert (permits.taken, reader.whole) == (0, True)

    monkeypatch.setattr(answer, "WRITE_TIMEOUT_S", 0.05)
    never = Reader(path, content)
    await asyncio.wait_for(app(never.scope, never.messages.get, never.send), 10)
    assert (permits.taken, never.whole) == (0, False)

    leaver = Reader(path, content)
    monkeypatch.setattr(answer, "WRITE_TIMEOUT_S", 60)
    task = asyncio.create_task(app(leaver.scope, leaver.messages.get, leaver.send))
    await asyncio.sleep(0.3)
    leaver.messages.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(task, 10)
    assert (permits.taken, leaver.whole) == (0, False)


async def test_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "WRITE_TIMEOUT_S", 0.2)
    app = build_app(FakeEngine())
    async with serve(app) as address, connection(address) as (_, writer):
        writer.write(request("/tokenize", {"inputs": "x" * 250_000}))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(app.state.api.permits.drained(), 20)
        async with httpx.AsyncClient(base_url=address) as client:
            assert (await client.post("/generate", json={"inputs": "x"})).status_code == 200


@pytest.mark.parametrize("text", ["", "é☃\U0001f600 a", "<s>a</s>", '"\\\n é' * 55_000])
async def test_detokenize_is_the_way_back(text: str) -> None:
    """Special tokens keep their texts, long texts are written in pieces."""
    async with client_of(build_app(FakeEngine())) as client:
        answer = await client.post("/detokenize", json={"tokens": TOKENIZER.encode(text, add_special_tokens=False)})
    assert (answer.status_code, answer.json()) == (200, {"prompt": text})


@pytest.mark.parametrize("id", [-1, 5_000, 2**32, "a", None, True, 1.5])
async def test_detokenize_names_what_is_no_token(id: Any) -> None:
    async with client_of(build_app(FakeEngine())) as client:
        answer = await client.post("/detokenize", json={"tokens": [1, id]})
    assert answer.status_code == 422
    assert "tokens" in answer.json()["error"]


async def test_detokenize_takes_a_permit(monkeypatch: pytest.MonkeyPatch) -> None:
    release, begun = threading.Event(), threading.Event()

    def slow(self: Tokenizer, ids: list[int], skip_special_tokens: bool = False) -> str:
        begun.set()
        assert release.wait(20)
        return "x"

    monkeypatch.setattr(Tokenizer, "decode", slow)
    app = build_app(FakeEngine(), max_concurrent_requests=1)
    async with client_of(app) as client:
        first = asyncio.create_task(client.post("/detokenize", json={"tokens": [1]}))
        await asyncio.to_thread(begun.wait, 10)
        assert (await client.post("/detokenize", json={"tokens": [1]})).status_code == 429
        release.set()
        assert (await first).json() == {"prompt": "x"}
        assert app.state.api.permits.taken == 0


async def test_tokenising_is_no_generation() -> None:
    """TGI counts no calls of `/tokenize`, so it counts none of their failures either."""
    app = build_app(FakeEngine())
    async with client_of(app) as client:
        await client.post("/tokenize", json={"inputs": "x"})
        await client.post("/tokenize", json={"inputs": 1})
    assert b"tgi_request_" not in app.state.api.metrics.render().replace(b"# ", b"")
