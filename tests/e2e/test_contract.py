"""TGI's contract asked of a real server: shapes of answers, messages, and every series after a named request."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.fake import TEMPLATE
from tests.api.test_messages import STREAMED, WHOLE, error
from tests.api.test_metrics import AFTER_A_GENERATION, names, value
from tests.api.test_shapes import CASES, SHAPES, live, shape
from tests.e2e.conftest import HAS_DEMO
from tests.e2e.launched import REAL, Launched
from tgi.metrics import METRICS

VOCABULARY = 384
"""Of the tiny model."""
BY_METHOD = (
    "tgi_batch_inference_count",
    "tgi_batch_inference_success",
    "tgi_batch_inference_duration_count",
    "tgi_batch_forward_duration_count",
    "tgi_batch_decode_duration_count",
    "tgi_batch_filter_duration_count",
)
LONG = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 200, "ignore_eos": True}}


@pytest.mark.skipif(not HAS_DEMO, reason="/info of another model has other types: the demo model is not there")
@pytest.mark.parametrize("name", list(CASES))
def test_shape(name: str, server: Launched) -> None:
    case = CASES[name]
    example = case.adjust(json.loads(json.dumps(SHAPES[name])))
    method = "GET" if case.body is None else "POST"
    answer = httpx.request(method, server.url + case.path, json=case.body, timeout=60)
    assert shape(live(case, answer)) == shape(example)


@pytest.fixture(scope="module")
def small(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Two permits, a context of 256 tokens and a cache for no more; a template that refuses the role `bad`."""
    home = tmp_path_factory.mktemp("home")
    (home / "template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    arguments = ["--model-id", str(tiny_model), "--tokenizer-config-path", str(home / "template.json")]
    arguments += ["--max-total-tokens", "256", "--max-batch-total-tokens", "256", "--max-concurrent-requests", "2"]
    arguments += ["--max-queue", "0"]  # refused at once, as by the launcher
    arguments += ["--max-stop-sequences", "4", "--max-top-n-tokens", "5"]  # TGI's, which its messages name
    with Launched(REAL, [*arguments, "--threads", "1"], home) as launched:
        yield launched.connected()


@asynccontextmanager
async def client_of(server: Launched) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        yield client


def count(text: str, series: str) -> float:
    return value(text, series) if f"{series} " in text else 0.0


async def tried(client: httpx.AsyncClient, attempt: Callable[[], Awaitable[object]], series: str) -> str:
    """The metrics after attempts at what needs a request that still runs, until the series has grown: on a busy machine
    the first may come too late."""
    old = count((await client.get("/metrics")).text, series)
    async with asyncio.timeout(60):
        while True:
            await attempt()
            text = (await client.get("/metrics")).text
            if count(text, series) > old:
                return text


async def changed(client: httpx.AsyncClient, before: str, series: str) -> str:
    """The metrics once a series is there and has grown; what an answer does not wait for comes a moment later."""
    old = count(before, series)
    while True:
        text = (await client.get("/metrics")).text
        if count(text, series) > old:
            return text
        await asyncio.sleep(0.01)


async def test_every_series_after_a_named_request(small: Launched) -> None:
    async with client_of(small) as client:

        async def after(series: str, body: dict[str, Any], path: str = "/generate", status: int = 200) -> str:
            before = (await client.get("/metrics")).text
            answer = await client.post(path, json=body)
            assert answer.status_code == status, answer.text
            return await asyncio.wait_for(changed(client, before, series), 20)

        text = await after("tgi_request_success", {"inputs": "Hello, ", "parameters": {"max_new_tokens": 4}})
        assert names(text) >= AFTER_A_GENERATION
        for series in BY_METHOD:
            for method in ("prefill", "decode"):
                assert value(text, f'{series}{{method="{method}"}}') >= 1

        async def join() -> None:
            async with client.stream("POST", "/generate_stream", json=LONG) as stream:
                lines = aiter(stream.aiter_lines())
                await anext(lines)
                await after("tgi_request_success", {"inputs": "x", "parameters": {"max_new_tokens": 2}})
                assert [line async for line in lines]

        text = await tried(client, join, 'tgi_batch_concat{reason="chunking"}')
        assert value(text, 'tgi_batch_concat_duration_count{method="decode"}') >= 1
        too_much = {"prompt": "x", "n": 2, "max_tokens": 200, "ignore_eos": True}
        await after("tgi_preemptions", too_much, path="/v1/completions")
        prompt = {"inputs": "Once upon a time" * 8, "parameters": {"max_new_tokens": 1}}
        await after("tgi_prefix_cache_query_tokens", prompt)
        await after("tgi_prefix_cache_hit_tokens", prompt)
        await after('tgi_request_failure{err="validation"}', {"inputs": ""}, status=422)
        bad = {"messages": [{"role": "bad", "content": ""}]}
        await after('tgi_request_failure{err="template"}', bad, path="/v1/chat/completions", status=422)

        async def crowd() -> None:
            async with client.stream("POST", "/generate_stream", json=LONG) as stream:
                await anext(aiter(stream.aiter_lines()))
                await client.post("/v1/completions", json={"prompt": ["a", "b"], "max_tokens": 1})

        await tried(client, crowd, 'tgi_request_failure{err="overloaded"}')
        nothing_left = {"prompt": "x", "min_tokens": 2, "stop_token_ids": list(range(VOCABULARY))}
        text = await after('tgi_request_failure{err="generation"}', nothing_left, path="/v1/completions", status=424)
        assert value(text, 'tgi_batch_inference_failure{method="prefill"}') >= 1

        async def leave() -> None:
            async with client.stream("POST", "/generate_stream", json=LONG) as stream:
                await anext(aiter(stream.aiter_lines()))

        text = await tried(client, leave, 'tgi_request_failure{err="dropped"}')
    assert names(text) == set(METRICS)


@pytest.mark.parametrize(("parameters", "message"), WHOLE)
def test_messages(small: Launched, parameters: dict[str, Any], message: str) -> None:
    answer = small.post(inputs="x", parameters=parameters)
    given = re.sub(r"Given: \d+ `inputs`", f"Given: {len(tokens(small, 'x'))} `inputs`", message)
    assert (answer.status_code, answer.json()) == (422, error(given))


@pytest.mark.parametrize(("parameters", "message"), STREAMED)
def test_messages_of_streams(small: Launched, parameters: dict[str, Any], message: str) -> None:
    answer = small.post("/generate_stream", inputs="x", parameters=parameters)
    assert answer.text == f'data: {{"error":"Input validation error: {message}","error_type":"validation"}}\n\n'


def test_messages_about_the_prompt(small: Launched) -> None:
    assert small.post(inputs="").json() == error("`inputs` cannot be empty")
    text = "x" * 300
    message = "`inputs` tokens + `max_new_tokens` must be <= 256. Given: 301 `inputs` tokens and 0 `max_new_tokens`"
    assert len(tokens(small, text)) == 301
    assert small.post(inputs=text).json() == error(message)
    text = "x" * 255
    assert small.post(inputs=text).json() == error("`inputs` must have less than 255 tokens. Given: 256")
    assert small.post(inputs=text[1:]).status_code == 200


def test_cached_tokens(small: Launched) -> None:
    """Those that the engine found; what the samples of one request share is none of them."""

    def cached(**fields: Any) -> int:
        body = {"prompt": list(range(40, 140)), "max_tokens": 1, "seed": 1, **fields}
        answer = httpx.post(f"{small.url}/v1/completions", json=body, timeout=60).json()
        return answer["usage"]["prompt_tokens_details"]["cached_tokens"]

    first, *others = [cached(n=2), cached(), cached(n=2)]
    assert first == 0
    assert others == [96, 96], "whole blocks of 16 or 32 tokens"
    assert cached(prompt=list(range(140, 240))) == 0


def tokens(server: Launched, text: str) -> list[Any]:
    return server.post("/tokenize", inputs=text).json()
