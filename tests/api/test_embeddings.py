"""`/v1/embeddings`: texts of every form, both encodings, limits, and what is told of a call."""

from __future__ import annotations

import asyncio
import base64
import logging
import struct
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from tests.api.fake import BOS, INFO, FakeEngine, build_app, ids_of
from tgi.serving.embeddings import MAX_INPUTS, TOGETHER
from tgi.serving.pooling import Pooling

ROUTE = "/v1/embeddings"


def client_of(engine: FakeEngine, **settings: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(build_app(engine, **settings)), base_url="http://test")


async def embed(client: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await client.post(ROUTE, json={"input": "ab", **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(client: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await client.post(ROUTE, json={"input": "ab", **fields})
    assert 400 <= answer.status_code < 500
    return answer.json()["error"]


def expected(ids: list[int], width: int = 8) -> list[float]:
    """What the scripted engine makes of a prompt."""
    return ([id / 2 for id in reversed(ids)] + [0.0] * 8)[:width]


async def test_answer(client: httpx.AsyncClient) -> None:
    ids = [BOS, *ids_of("ab")]
    assert await embed(client) == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": expected(ids)}],
        "model": "org/model",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        (["ab", "c"], [[BOS, *ids_of("ab")], [BOS, *ids_of("c")]]),
        (["ab"], [[BOS, *ids_of("ab")]]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2], [3], [4, 5]], [[1, 2], [3], [4, 5]]),
    ],
)
async def test_forms_of_input(client: httpx.AsyncClient, engine: FakeEngine, given: Any, prompts: list[Any]) -> None:
    body = await embed(client, input=given)
    assert [one["embedding"] for one in body["data"]] == [expected(ids) for ids in prompts]
    assert [one["index"] for one in body["data"]] == list(range(len(prompts)))
    assert [request.prompt_ids for request in engine.embeds] == prompts
    assert body["usage"]["prompt_tokens"] == sum(map(len, prompts))


async def test_base64_is_little_endian_float32(client: httpx.AsyncClient) -> None:
    body = await embed(client, encoding_format="base64", dimensions=3)
    data = base64.b64decode(body["data"][0]["embedding"])
    assert list(struct.unpack("<3f", data)) == expected([BOS, *ids_of("ab")], 3)


async def test_special_tokens_can_be_left_out(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await embed(client, add_special_tokens=False)
    assert engine.embeds[0].prompt_ids == ids_of("ab")


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_a_large_answer_is_the_same_in_pieces(encoding: str) -> None:
    engine = FakeEngine(replace(INFO, hidden_size=1000))
    async with client_of(engine) as client:
        body = await embed(client, input=[[number % 200] for number in range(300)], encoding_format=encoding)
    assert [one["index"] for one in body["data"]] == list(range(300))
    for number, one in enumerate(body["data"]):
        vector = one["embedding"]
        if encoding == "base64":
            vector = list(struct.unpack("<1000f", base64.b64decode(vector)))
        assert vector == [number % 200 / 2, *[0.0] * 999]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": []}, "input", f"1 to {MAX_INPUTS} texts. Given: 0"),
        ({"input": ["a"] * (MAX_INPUTS + 1)}, "input", f"Given: {MAX_INPUTS + 1}"),
        ({"input": ""}, "input", "`input` cannot be empty"),
        ({"input": ["a", ""]}, "input[1]", "`input[1]` cannot be empty"),
        ({"input": [[1], []]}, "input[1]", "`input[1]` cannot be empty"),
        ({"input": [[1], [2, 258]]}, "input[1]", "258 is out of vocabulary"),
        ({"input": [[1], [-1]]}, "input[1]", "-1 is out of vocabulary"),
        ({"input": ["a", "b" * 255]}, "input[1]", "at most 255 tokens. Given: 256"),
        ({"input": "b" * 100_000}, "input", "at most 255 tokens. Given: at least"),
        ({"input": [1] * 256}, "input", "at most 255 tokens. Given: 256"),
        ({"input": {"text": "a"}}, "input", "expected a string, an array of strings"),
        ({"input": ["a", 1]}, "input", "expected a string, an array of strings"),
        ({"input": [1, True]}, "input", "expected a string, an array of strings"),
        ({"input": [1.0]}, "input", "expected a string, an array of strings"),
        ({"input": None}, None, "missing field `input`"),
        ({"dimensions": 0}, "dimensions", "`dimensions` must be >= 1 and <= 8, the model's hidden size. Given: 0"),
        ({"dimensions": 9}, "dimensions", "Given: 9"),
        ({"dimensions": -1}, "dimensions", "dimensions"),
        ({"dimensions": "4"}, "dimensions", "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format", "'float' or 'base64'"),
    ],
)
async def test_refused_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, Any], param: str | None, words: str
) -> None:
    error = await refused(client, **fields)
    assert words in error["message"]
    assert param is None or error["param"] == param
    assert not engine.embeds, "nothing runs of a request of which one text is wrong"


async def test_a_text_that_is_too_long_has_openais_code(client: httpx.AsyncClient) -> None:
    error = await refused(client, input="b" * 300)
    assert error["code"] == "context_length_exceeded"


async def test_a_model_without_embeddings_says_so() -> None:
    for info, words in (
        (replace(INFO, hidden_size=0), "no hidden states"),
        (replace(INFO, decoder_ids=(1,)), "encoder"),
    ):
        async with client_of(FakeEngine(info)) as client:
            error = await refused(client)
            assert error["param"] == "model" and words in error["message"]


async def test_a_checkpoint_with_other_modules_says_so(engine: FakeEngine) -> None:
    app = build_app(engine)
    app.state.api.service.embedder.pooling = Pooling("last", "modules.json", "modules.json puts a module Dense ...")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert "Dense" in (await refused(client))["message"]


async def test_what_has_no_effect_is_told(client: httpx.AsyncClient) -> None:
    answer = await client.post(ROUTE, json={"input": "a", "user": "me", "model": "other", "input_type": "query"})
    assert answer.headers["x-tgi-ignored"] == "input_type, model, user"
    assert "x-tgi-ignored" not in (await client.post(ROUTE, json={"input": "a", "model": "tgi"})).headers


async def test_headers_metrics_and_log(
    client: httpx.AsyncClient, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.cached_tokens = 2
    with caplog.at_level(logging.INFO, "tgi.api"):
        answer = await client.post(ROUTE, json={"input": ["ab", "cde"], "dimensions": 4})
    assert answer.headers["x-prompt-tokens"] == "7" and answer.headers["x-compute-characters"] == "5"
    assert int(answer.headers["x-total-time"]) >= int(answer.headers["x-inference-time"]) >= 0
    (line,) = [record for record in caplog.records if record.getMessage() == "Success"]
    name, facts = line.span  # type: ignore[attr-defined]
    assert name == "embeddings"
    assert {
        "inputs": 2,
        "input_tokens": 7,
        "cached_tokens": 4,
        "dimensions": 4,
        "pooling": "last",
    }.items() <= facts.items()
    text = (await client.get("/metrics")).text
    assert "tgi_request_success 1" in text and "tgi_request_input_length_count 2" in text
    assert "tgi_request_duration_count 1" in text


async def test_one_permit_and_few_texts_in_the_engine(engine: FakeEngine) -> None:
    """A long list waits outside of the engine, and the loop stays free meanwhile."""
    engine.hold_after = 0
    app = build_app(engine, max_concurrent_requests=1)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        task = asyncio.create_task(client.post(ROUTE, json={"input": [[1]] * 500}))
        while len(engine.open) < TOGETHER:
            await engine.changed.wait()
        await asyncio.sleep(0.01)
        assert len(engine.open) == TOGETHER and app.state.api.permits.taken == 1
        assert (await client.post(ROUTE, json={"input": "a"})).status_code == 429
        engine.release.set()
        assert len((await task).json()["data"]) == 500
    assert app.state.api.permits.taken == 0


async def test_a_failure_ends_the_others(engine: FakeEngine) -> None:
    engine.fail_after = 0
    async with client_of(engine) as client:
        answer = await client.post(ROUTE, json={"input": ["a", "b"]})
    assert answer.status_code == 424 and "caught fire" in answer.json()["error"]["message"]
    assert not engine.open


async def test_it_drains_and_wants_the_key(engine: FakeEngine) -> None:
    app = build_app(engine, api_key="secret")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.post(ROUTE, json={"input": "a"})).status_code == 401
        headers = {"authorization": "Bearer secret"}
        assert (await client.post(ROUTE, json={"input": "a"}, headers=headers)).status_code == 200
        assert await app.state.drain(1.0)
        assert (await client.post(ROUTE, json={"input": "a"}, headers=headers)).status_code == 503
