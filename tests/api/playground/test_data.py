"""`/dashboard/data`: what it tells of requests, and to whom."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.api.fake import FakeEngine, build_app
from tgi.api.playground.history import Second
from tgi.api.playground.snapshot import _series


async def data(client: httpx.AsyncClient, **headers: str) -> dict:
    return (await client.get("/dashboard/data", headers=headers)).json()


async def test_a_request_with_its_times(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.cached_tokens = 3
    body = {"messages": [{"role": "user", "content": "a secret text"}], "stream": True}
    assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    answer = await client.get("/dashboard/data")
    assert "secret text" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    (shown,) = answer.json()["requests"]
    assert (shown["number"], shown["route"], shown["outcome"]) == (1, "chat_completions", "ok")
    assert (shown["generated_tokens"], shown["cached_tokens"], shown["finish"]) == (12, 3, "eos_token")
    assert shown["prompt_tokens"] == len("[user]a secret text[assistant]")
    times = [shown[f"{name}_s"] for name in ("permitted", "validated", "scheduled", "first_token", "ended")]
    assert times == sorted(times)


async def test_open_requests_are_there_before_they_end(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.hold_after = 0
    task = asyncio.create_task(client.post("/generate", json={"inputs": "x"}))
    await engine.changed.wait()
    (shown,) = (await data(client))["open"]
    assert (shown["outcome"], shown["route"], shown.get("ended_s")) == ("", "generate", None)
    engine.release.set()
    await task
    assert not (await data(client))["open"]


async def test_errors_are_kept_with_their_message(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.fail_after = 2
    await client.post("/generate", json={"inputs": "x"})
    await client.post("/generate", json={"inputs": "x", "parameters": {"top_p": 3}})
    errors = (await data(client))["errors"]
    assert [error["outcome"] for error in errors] == ["validation", "generation"]
    assert "`top_p` must be" in errors[0]["message"]


async def test_the_key_is_needed_and_messages_are_its_own() -> None:
    app = build_app(FakeEngine(), api_keys=("one", "two"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/dashboard/data")).status_code == 401
        for path in ("/dashboard", "/"):
            assert (await client.get(path, headers={"accept": "text/html"})).status_code == 200
        one, two = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        await client.post("/generate", json={"inputs": "x", "parameters": {"top_p": 3}}, headers=one)
        (mine,) = (await data(client, **one))["errors"]
        (other,) = (await data(client, **two))["errors"]
    assert (mine["yours"], "top_p" in mine["message"]) == (True, True)
    assert (other["yours"], other.get("message", "")) == (False, "")


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "901", "9" * 100])
async def test_seconds_out_of_range(client: httpx.AsyncClient, seconds: str) -> None:
    answer = await client.get("/dashboard/data", params={"seconds": seconds})
    assert answer.status_code == 422
    assert "`seconds` must be >= 1 and <= 900" in answer.json()["error"]


async def test_series_have_one_value_a_second(client: httpx.AsyncClient) -> None:
    series = (await client.get("/dashboard/data?seconds=10")).json()["seconds"]
    assert {len(values) for values in series.values()} == {10}


async def test_counting_tokens_leaves_no_trace(client: httpx.AsyncClient) -> None:
    await client.post("/detokenize", json={"tokens": [1, 2]})
    assert not (await data(client))["requests"]


def test_seconds_within_a_step_are_as_those_before() -> None:
    """A step is told of when it ends: its time belongs to the seconds that it took."""
    kept = [Second(100, running=3, free_blocks=40, busy_s=0.5), Second(104, running=2, free_blocks=50, busy_s=3.2)]
    series = _series(kept, 105, 7, 60)
    assert series.running == [0, 3, 3, 3, 3, 2, 2]
    assert series.free_blocks == [60, 40, 40, 40, 40, 50, 50]
    assert [round(one, 1) for one in series.busy_s] == [0.0, 0.5, 0.2, 1.0, 1.0, 1.0, 0.0]


async def test_latencies_are_those_of_all_who_ended(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    for tokens in (1, 12):
        await client.post("/generate", json={"inputs": "x", "parameters": {"max_new_tokens": tokens}})
    (long, short) = (await data(client))["latencies"]
    assert short[2] is None, "one token has nothing between"
    assert long[2] > 0
    assert 0 < short[1] < 10


async def test_the_chosen_request_has_reasons(client: httpx.AsyncClient) -> None:
    await client.post("/generate", json={"inputs": "x"})
    body = (await client.get("/dashboard/data?request=1")).json()
    assert (body["chosen"]["number"], body["chosen"]["reasons"]) == (1, [])
    assert "reasons" not in body["requests"][0]
    assert (await client.get("/dashboard/data?request=99")).json()["chosen"] is None
    assert (await client.get("/dashboard/data?request=-1")).status_code == 422


async def test_embeddings_spend_their_time_on_the_prompt(client: httpx.AsyncClient) -> None:
    await client.post("/v1/embeddings", json={"input": ["a text", "another"]})
    body = await data(client)
    (shown,) = body["requests"]
    assert (shown["prompt_tokens"], shown["outcome"]) == (len("<a text") + len("<another"), "ok")
    assert shown["scheduled_s"] <= shown["first_token_s"] <= shown["ended_s"]
    assert body["latencies"] == []
