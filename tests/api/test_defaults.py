"""What the server decides where a request does not: length of the answer, kind of log-probabilities."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from tests.api.fake import INFO, FakeEngine, build_app

MESSAGES = [{"role": "user", "content": "Hi"}]
LONG = msgspec.structs.replace(INFO, max_input_tokens=3999, max_total_tokens=4000)
INFER = {
    "id": "1",
    "inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": [65]}],
    "outputs": [{"name": "a"}],
}
GENERATING: list[tuple[str, dict[str, Any]]] = [
    ("/", {"inputs": "x"}),
    ("/", {"inputs": "x", "stream": True}),
    ("/generate", {"inputs": "x"}),
    ("/generate", {"inputs": "x", "parameters": None}),
    ("/generate", {"inputs": "x", "parameters": {"max_new_tokens": None}}),
    ("/generate_stream", {"inputs": "x", "parameters": {"temperature": 0.5}}),
    ("/invocations", {"inputs": "x"}),
    ("/invocations", {"prompt": "x"}),
    ("/invocations", {"messages": MESSAGES}),
    ("/v1/completions", {"prompt": "x"}),
    ("/v1/completions", {"prompt": [1, 2], "stream": True}),
    ("/v1/completions", {"prompt": ["x", "y"], "max_tokens": None}),
    ("/v1/chat/completions", {"messages": MESSAGES}),
    ("/v1/chat/completions", {"messages": MESSAGES, "stream": True}),
    ("/v1/responses", {"input": "x"}),
    ("/v1/responses", {"input": "x", "stream": True}),
    ("/vertex", {"instances": [{"inputs": "x"}]}),
    ("/vertex", {"instances": [{"messages": MESSAGES}]}),
    ("/v2/models/m/versions/1/infer", INFER),
]


@asynccontextmanager
async def client_of(engine: FakeEngine, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build_app(engine, **settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(("path", "body"), GENERATING)
async def test_default_length_on_every_route(path: str, body: dict[str, Any]) -> None:
    for default, length in ((1024, 1024), (7, 7), (100_000, None), (None, None)):
        engine = FakeEngine(LONG)
        async with client_of(engine, default_max_new_tokens=default) as client:
            answer = await client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        request = engine.requests[-1]
        assert request.sampling.max_new_tokens == (length or 4000 - len(request.prompt_ids))


async def test_default_length_is_only_a_default() -> None:
    engine = FakeEngine(LONG)
    async with client_of(engine, default_max_new_tokens=8) as client:
        await client.post("/generate", json={"inputs": "x", "parameters": {"max_new_tokens": 2000}})
        await client.post("/v1/completions", json={"prompt": "x", "max_tokens": 2000})
        answer = await client.post(
            "/generate", json={"inputs": "x", "parameters": {"ignore_eos": True, "details": True}}
        )
    assert [request.sampling.max_new_tokens for request in engine.requests] == [2000, 2000, 8]
    details = answer.json()["details"]
    assert (details["generated_tokens"], details["finish_reason"]) == (8, "length")


async def test_defaults_are_in_info() -> None:
    async with client_of(FakeEngine(), default_max_new_tokens=1024, raw_logprobs=True) as client:
        runtime = (await client.get("/info")).json()["runtime"]
    assert (runtime["default_max_new_tokens"], runtime["raw_logprobs"]) == (1024, True)
    async with client_of(FakeEngine()) as client:
        runtime = (await client.get("/info")).json()["runtime"]
    assert (runtime["default_max_new_tokens"], runtime["raw_logprobs"]) == (None, False)


@pytest.mark.parametrize(("path", "body"), GENERATING)
@pytest.mark.parametrize("raw", [False, True])
async def test_raw_log_probabilities_on_every_route(path: str, body: dict[str, Any], raw: bool) -> None:
    """OpenAI's routes always report the model's own."""
    engine = FakeEngine(LONG)
    async with client_of(engine, raw_logprobs=raw) as client:
        assert (await client.post(path, json=body)).status_code == 200
    openai = path.startswith("/v1/") or (path == "/invocations" and "inputs" not in body)
    assert engine.requests[-1].sampling.raw_logprobs == (raw or openai)
