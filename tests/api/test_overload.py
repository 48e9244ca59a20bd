"""Permits: who gets one, what the others are told, and that all come back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from starlette.types import Message

from tests.api.fake import FakeEngine, build_app
from tgi.api.admission import Permits
from tgi.errors import OverloadedError

MESSAGES = [{"role": "user", "content": "Hi"}]
FLAT = {"error": "Model is overloaded", "error_type": "overloaded"}
SAMPLED = {"best_of": 2, "do_sample": True}


class Held:
    """A server with two permits, of which `open` requests hold one each."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.engine.hold_after = 1
        self.app = build_app(self.engine, max_concurrent_requests=2)
        self.permits: Permits = self.app.state.api.permits
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test")

    async def open(self) -> asyncio.Task[httpx.Response]:
        changed = self.engine.changed
        task = asyncio.create_task(self.client.post("/generate", json={"inputs": "x"}))
        await changed.wait()
        return task


async def test_refused_at_once() -> None:
    """Every route answers 429 with its clients' error and a time to come back; streams too, before they begin."""
    held = Held()
    open_calls = [await held.open(), await held.open()]
    infer = "/v2/models/m/versions/1/infer"
    for path in ("/generate", "/generate_stream", "/", "/vertex", infer, "/invocations", "/tokenize", "/chat_tokenize"):
        answer = await held.client.post(path, content=b"not even json")
        assert (answer.status_code, answer.json()) == (429, FLAT)
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    for path in ("/v1/chat/completions", "/v1/completions"):
        answer = await held.client.post(path, content=b"")
        assert answer.status_code == 429
        assert answer.json()["error"] == {
            "message": "Model is overloaded",
            "type": "rate_limit_error",
            "param": None,
            "code": None,
        }
        assert "retry-after" in answer.headers
    assert (await held.client.get("/health")).status_code == 200
    held.engine.release.set()
    assert [(await call).status_code for call in open_calls] == [200, 200]
    assert held.permits.taken == 0
    assert (await held.client.post("/generate", json={"inputs": "x"})).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"inputs": "x", "parameters": SAMPLED}),
        ("/v1/chat/completions", {"messages": MESSAGES, "n": 2}),
        ("/v1/completions", {"prompt": ["a", "b"]}),
        ("/v1/completions", {"prompt": "a", "n": 2, "stream": True}),
        ("/vertex", {"instances": [{"inputs": "a"}, {"inputs": "b"}]}),
    ],
)
async def test_several_samples_take_several_permits(path: str, body: dict[str, Any]) -> None:
    held = Held()
    one = await held.open()
    assert (await held.client.post(path, json=body)).status_code == 429
    assert held.permits.taken == 1
    held.engine.release.set()
    await one
    assert (await held.client.post(path, json=body)).status_code == 200
    assert held.permits.taken == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_permits_come_back_after_errors(stream: bool) -> None:
    held = Held()
    held.engine.hold_after = None
    bodies = [
        ("/", {"inputs": "", "stream": stream}),
        ("/v1/chat/completions", {"messages": [{"role": "bad", "content": ""}], "stream": stream}),
        ("/v1/completions", {"prompt": [], "stream": stream}),
    ]
    for path, body in bodies * 2:
        await held.client.post(path, json=body)
        assert held.permits.taken == 0
    held.engine.crash_after = 1
    for path, body in (
        ("/", {"inputs": "x", "stream": stream}),
        ("/v1/completions", {"prompt": "x", "stream": stream}),
    ):
        await held.client.post(path, json=body)
        assert held.permits.taken == 0
    assert held.engine.open_requests == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate_stream", {"inputs": "x"}),
        ("/v1/chat/completions", {"messages": MESSAGES, "stream": True}),
        ("/v1/completions", {"prompt": ["x", "y"], "stream": True}),
    ],
)
@pytest.mark.parametrize("crash_after", [None, 0, 1], ids=["whole", "fails before a token", "fails after one"])
async def test_whoever_reads_the_end_of_a_stream_finds_its_permits_free(
    path: str, body: dict[str, Any], crash_after: int | None
) -> None:
    """Nothing else runs between the last byte and the return of the permits."""
    held = Held()
    held.engine.hold_after, held.engine.crash_after = None, crash_after
    taken: list[int] = []
    content = json.dumps(body).encode()
    requests: asyncio.Queue[Message] = asyncio.Queue()
    requests.put_nowait({"type": "http.request", "body": content})

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            asyncio.get_running_loop().call_soon(lambda: taken.append(held.permits.taken))

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "query_string": b""}
    scope |= {"http_version": "1.1", "scheme": "http", "headers": [(b"content-type", b"application/json")]}
    await held.app(scope, requests.get, send)
    await asyncio.sleep(0)
    assert taken == [0]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def retry_after(permits: Permits, count: int = 1) -> int:
    with pytest.raises(OverloadedError) as refused:
        permits.take(count)
    return int(refused.value.headers["retry-after"])


def test_retry_after_is_the_measured_drain_rate() -> None:
    clock = Clock()
    permits = Permits(4, clock)
    permits.take(4)
    for _ in range(10):  # one comes free every 4 seconds
        clock.now += 4
        permits.give_back(1)
        permits.take(1)
    assert 3 <= retry_after(permits) <= 5
    assert 6 <= retry_after(permits, 2) <= 10


def test_retry_after_without_a_measurement() -> None:
    """At first a second; with nothing ending, as long as it has taken so far, at most a minute."""
    clock = Clock()
    permits = Permits(1, clock)
    permits.take(1)
    assert retry_after(permits) == 1
    clock.now += 20
    assert retry_after(permits) == 20
    clock.now += 10_000
    assert retry_after(permits) == 60
