"""Requests in line, over the routes: all are answered, those that leave leave nothing, and keys are treated alike."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.api.fake import FakeEngine, build_app

CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}


def client_of(app: Any, key: str | None = None) -> httpx.AsyncClient:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)


async def test_three_hundred_at_once_are_all_answered() -> None:
    app = build_app(FakeEngine(), max_concurrent_requests=16, max_queue=1024)
    async with client_of(app) as client:
        calls = [
            client.post("/v1/chat/completions", json=CHAT | {"stream": number % 2 == 0, "n": 1 + number % 3})
            for number in range(300)
        ]
        answers = await asyncio.gather(*calls)
    assert {answer.status_code for answer in answers} == {200}
    permits = app.state.api.permits
    assert (permits.taken, permits.waiting) == (0, 0)


async def test_waiting_counts_as_queue_time() -> None:
    engine = FakeEngine()
    engine.hold_after = 1
    app = build_app(engine, max_concurrent_requests=1, max_queue=1)
    body = {"inputs": "x", "parameters": {"max_new_tokens": 3}}
    async with client_of(app) as client:
        first = asyncio.create_task(client.post("/generate", json=body))
        await until(lambda: engine.open_requests)
        second = asyncio.create_task(client.post("/generate", json=body))
        await until(lambda: app.state.api.permits.waiting)
        third = await client.post("/generate", json=body)
        assert "\ntgi_queue_size 1.0\n" in (await client.get("/metrics")).text
        runtime = (await client.get("/info")).json()["runtime"]
        assert (runtime["max_queue"], runtime["waiting"]) == (1, 1)
        assert (await client.get("/health?verbose=1")).json()["waiting"] == 1
        await asyncio.sleep(0.1)
        engine.release.set()
        answers = [await first, await second]
    assert third.status_code == 429
    assert int(answers[1].headers["x-queue-time"]) >= 100 > int(answers[1].headers["x-validation-time"])


@pytest.mark.parametrize(("path", "body"), [("/generate", {"inputs": "x"}), ("/v1/chat/completions", CHAT)])
async def test_who_leaves_while_waiting_is_gone(path: str, body: dict[str, Any]) -> None:
    engine = FakeEngine()
    engine.hold_after = 1
    app = build_app(engine, max_concurrent_requests=1, max_queue=4)
    permits = app.state.api.permits
    async with client_of(app) as client:
        first = asyncio.create_task(client.post(path, json=body))
        await until(lambda: engine.open_requests)
        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "query_string": b""}
        scope |= {"http_version": "1.1", "scheme": "http", "headers": [(b"content-type", b"application/json")]}
        messages = asyncio.Queue[Any]()
        messages.put_nowait({"type": "http.request", "body": json.dumps(body).encode()})

        async def send(message: Any) -> None:
            pass

        leaver = asyncio.create_task(app(scope, messages.get, send))
        await until(lambda: permits.waiting)
        messages.put_nowait({"type": "http.disconnect"})
        await leaver
        assert (permits.taken, permits.waiting) == (1, 0)
        engine.release.set()
        assert (await first).status_code == 200
    assert (permits.taken, len(engine.requests)) == (0, 1)


async def test_draining_answers_those_in_line() -> None:
    engine = FakeEngine()
    engine.hold_after = 1
    app = build_app(engine, max_concurrent_requests=1, max_queue=4)
    async with client_of(app) as client:
        first = asyncio.create_task(client.post("/generate", json={"inputs": "x"}))
        await until(lambda: engine.open_requests)
        second = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
        await until(lambda: app.state.api.permits.waiting)
        draining = asyncio.create_task(app.state.drain(10))
        refused = await second
        engine.release.set()
        assert (await first).status_code == 200
        assert await draining
    assert (refused.status_code, refused.headers["connection"]) == (503, "close")


async def test_the_first_of_another_key_does_not_wait() -> None:
    engine = FakeEngine()
    engine.hold_after = 1
    app = build_app(engine, api_keys=("one", "two"), max_concurrent_requests=8, max_queue=1024)
    async with client_of(app, "one") as busy, client_of(app, "two") as other, client_of(app, "three") as stranger:
        calls = [asyncio.create_task(busy.post("/generate", json={"inputs": "x"})) for _ in range(200)]
        await until(lambda: app.state.api.permits.waiting > 100)
        first = asyncio.create_task(other.post("/generate", json={"inputs": "yy"}))
        await until(lambda: any(request.group for request in engine.requests))
        assert {request.group for request in engine.requests} == {0, 1}
        assert (await stranger.post("/generate", json={"inputs": "x"})).status_code == 401
        engine.release.set()
        answers = await asyncio.gather(first, *calls)
    assert {answer.status_code for answer in answers} == {200}
    assert app.state.api.permits.taken == 0


async def test_more_samples_than_one_key_can_have() -> None:
    app = build_app(FakeEngine(), api_keys=("one", "two"), max_concurrent_requests=8)
    async with client_of(app, "one") as client:
        refused = await client.post("/v1/chat/completions", json=CHAT | {"n": 7})
        taken = await client.post("/v1/chat/completions", json=CHAT | {"n": 6})
        prompts = await client.post("/v1/completions", json={"prompt": ["a"] * 4, "n": 2})
    assert refused.status_code == 422 and "the 6 that one request can have" in refused.json()["error"]["message"]
    assert taken.status_code == 200
    assert prompts.status_code == 422
