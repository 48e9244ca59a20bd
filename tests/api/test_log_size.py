"""One request cannot fill the log, nor hold everybody up while it is written."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.fake import FakeEngine, build_app
from tgi import logs

HUGE = "x\n" * 900_000
MESSAGES = [{"role": "user", "content": "Hi"}]
WIDE = {"max_concurrent_requests": 128, "max_stop_sequences": 10_000, "payload_limit": 10_000_000}
LONG = WIDE | {"max_stop_sequence_length": 2_000_000, "max_stop_token_ids": 1_000_000}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    logs.configure("debug", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("tgi", *logs.TARGETS, "tgi.engine"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(False)


def client_of(**settings: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(build_app(FakeEngine(), **settings), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60)


ACCEPTED = [
    ("/v1/chat/completions", {"messages": MESSAGES, "n": 128, "stop": HUGE}),
    ("/v1/completions", {"prompt": "x", "n": 128, "stop": [HUGE], "logit_bias": {str(i): 1 for i in range(258)}}),
    ("/v1/completions", {"prompt": "x", "stop": [f"{number:09}" for number in range(10_000)]}),
    ("/v1/completions", {"prompt": "x", "n": 64, "stop_token_ids": [1] * 500_000}),
    ("/v1/completions", {"prompt": ["x"] * 4, "stop": HUGE, "stream": True}),
    ("/generate", {"inputs": "x", "parameters": {"stop": [HUGE, "\x1b" * 100_000], "best_of": 2, "do_sample": True}}),
    ("/generate_stream", {"inputs": "x", "parameters": {"stop": [HUGE]}}),
]


@pytest.mark.parametrize(("path", "body"), ACCEPTED)
async def test_what_is_accepted(path: str, body: dict[str, Any], log: io.StringIO) -> None:
    """With every limit raised: the parameters once a request, long ones by their beginning."""
    async with client_of(**LONG) as client:
        assert (await client.post(path, json=body)).status_code == 200
    text = log.getvalue()
    assert 0 < len(text) < 100_000
    assert text.count("parameters=") == 1
    assert max(map(len, text.splitlines())) < 3000
    samples = body.get("n", 1) if isinstance(body.get("prompt", ""), str) else len(body["prompt"])
    assert text.count("Success") == (2 if path == "/generate" else samples)


REFUSED = [
    ("/generate", {"inputs": "x", "parameters": {"adapter_id": HUGE}}),
    ("/generate_stream", {"inputs": "x", "parameters": {"adapter_id": HUGE}}),
    ("/v1/completions", {"prompt": "x", "adapter_id": HUGE}),
    ("/v1/chat/completions", {"messages": MESSAGES, "adapter_id": HUGE}),
    ("/v1/chat/completions", {"messages": [{"role": "bad", "content": HUGE}]}),
    ("/generate", {"inputs": "x", "parameters": {"stop": [HUGE]}}),
    ("/v1/completions", {"prompt": "x", "stop": HUGE, "n": 128}),
    ("/v1/completions", {"prompt": "x", "stop_token_ids": [1] * 600_000}),
    ("/v1/completions", {"prompt": "x", "logit_bias": {"9" * 1_000_000: 1}}),
    ("/v1/completions", {"prompt": "x", "logit_bias": {HUGE: 1}}),
    ("/generate", {"inputs": "x", "parameters": {HUGE: 1, "temperature": HUGE}}),
    ("/generate", {"inputs": {HUGE: HUGE}}),
    ("/v1/chat/completions", {"messages": [{"role": HUGE, "content": 1}], "model": HUGE}),
    ("/generate", {"inputs": "x", "parameters": {"seed": 10**4000}}),
    ("/generate", {"inputs": "x", "parameters": {"grammar": {"type": HUGE, "value": HUGE}}}),
]


@pytest.mark.parametrize(("path", "body"), REFUSED)
async def test_what_is_refused(path: str, body: dict[str, Any], log: io.StringIO) -> None:
    """Neither the log nor the message repeats what was sent."""
    async with client_of(**WIDE) as client:
        response = await client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert "stream" in path or response.status_code in (400, 422)
    assert len(response.content) < 3000
    assert len(log.getvalue()) < 10_000


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"stop": ["x" * 1025]}, "`stop` sequences may have up to 1024 characters. Given: 1025"),
        ({"stop": ["a", "é" * 2000]}, "`stop` sequences may have up to 1024 characters. Given: 2000"),
        ({"stop_token_ids": [1] * 1025}, "`stop_token_ids` supports up to 1024 ids. Given: 1025"),
        ({"stop": ["x"] * 5}, "`stop` supports up to 4 stop sequences. Given: 5"),
    ],
)
async def test_bounds_of_stops(parameters: dict[str, Any], message: str) -> None:
    async with client_of() as client:
        response = await client.post("/v1/completions", json={"prompt": "x", **parameters})
        assert (response.status_code, response.json()["error"]["message"]) == (
            422,
            f"Input validation error: {message}",
        )
        fitting = {"stop": ["x" * 1024, "é" * 1024], "stop_token_ids": [1] * 1024}
        assert (await client.post("/v1/completions", json={"prompt": "x", **fitting})).status_code == 200
    async with client_of(max_stop_sequence_length=2000, max_stop_token_ids=2000, max_stop_sequences=5) as client:
        assert (await client.post("/v1/completions", json={"prompt": "x", **parameters})).status_code == 200
