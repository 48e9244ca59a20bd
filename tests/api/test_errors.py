"""What clients see when generation fails: one last event or one status, and nothing of our inside."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest

from tests.api.fake import FakeEngine

MESSAGES = [{"role": "user", "content": "Hi"}]
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("/generate", {"inputs": "x"}),
    ("/", {"inputs": "x"}),
    ("/v1/chat/completions", {"messages": MESSAGES}),
    ("/v1/completions", {"prompt": ["x", "y"]}),
]
STREAMS: list[tuple[str, dict[str, Any]]] = [
    ("/generate_stream", {"inputs": "x"}),
    ("/v1/chat/completions", {"messages": MESSAGES, "stream": True}),
    ("/v1/completions", {"prompt": ["x", "y"], "stream": True}),
]
FAILED = "Request failed during generation: Server error: the device caught fire"


def sentence(body: Any) -> str:
    return body["error"] if isinstance(body["error"], str) else body["error"]["message"]


def payloads(answer: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_generation_fails(client: httpx.AsyncClient, engine: FakeEngine, path: str, body: dict[str, Any]) -> None:
    engine.fail_after = 2
    answer = await client.post(path, json=body)
    assert answer.status_code == 424
    assert (sentence(answer.json()), answer.json()["error_type"]) == (FAILED, "generation")
    engine.fail_after = None
    assert (await client.post(path, json=body)).status_code == 200


@pytest.mark.parametrize(("path", "body"), STREAMS)
async def test_stream_fails(client: httpx.AsyncClient, engine: FakeEngine, path: str, body: dict[str, Any]) -> None:
    """An event after the tokens, exactly one; OpenAI's clients then still get their end mark."""
    engine.fail_after = 2
    answer = await client.post(path, json=body)
    assert answer.status_code == 200
    *tokens, last = payloads(answer)
    assert tokens
    assert not any("error" in token for token in tokens)
    assert (sentence(last), last["error_type"]) == (FAILED, "generation")
    assert answer.text.endswith("data: [DONE]\n\n") == path.startswith("/v1/")


async def test_stream_that_fails_before_its_first_token(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """OpenAI's routes have a true status as long as nothing was sent; TGI's have 200 whatever happens."""
    engine.fail_after = 0
    for path, body in STREAMS:
        answer = await client.post(path, json=body)
        if path.startswith("/v1/"):
            assert answer.status_code == 424
            assert answer.json()["error"]["type"] == "server_error"
        else:
            assert answer.status_code == 200
            assert payloads(answer) == [{"error": FAILED, "error_type": "generation"}]


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize(("path", "body"), CALLS + STREAMS)
async def test_our_mistakes_stay_ours(
    client: httpx.AsyncClient,
    engine: FakeEngine,
    caplog: pytest.LogCaptureFixture,
    path: str,
    body: dict[str, Any],
    after: int,
) -> None:
    """A generic sentence for the client, the traceback for the log."""
    engine.crash_after = after
    answer = await client.post(path, json=body)
    assert answer.status_code in (200, 500)
    assert "Internal server error" in answer.text
    for secret in ("secret", "Traceback", "RuntimeError", ".py", "0x"):
        assert secret not in answer.text
    assert any(record.exc_info and record.levelno == logging.ERROR for record in caplog.records)
    engine.crash_after = None
    assert (await client.post(path, json=body)).status_code == 200


async def test_generation_that_ends_too_early(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """The engine's events end without a last one: TGI has one word for whole answers and one for streams."""
    engine.cut_after = 2
    answer = await client.post("/generate", json={"inputs": "x"})
    assert answer.status_code == 500
    assert answer.json() == {"error": "Incomplete generation", "error_type": "incomplete_generation"}
    answer = await client.post("/generate_stream", json={"inputs": "x"})
    assert payloads(answer)[-1] == {
        "error": "Incomplete generation stream",
        "error_type": "incomplete_generation_stream",
    }
    answer = await client.post("/v1/completions", json={"prompt": "x", "stream": True})
    assert payloads(answer)[-1]["error_type"] == "incomplete_generation"
    assert 'tgi_request_failure{err="incomplete"} 3' in (await client.get("/metrics")).text


async def test_dead_engine(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.alive = False
    engine.fail_after = 0
    assert (await client.post("/generate", json={"inputs": "x"})).status_code == 424
    assert (await client.get("/health")).status_code == 503
