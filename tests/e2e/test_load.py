"""Many clients at once, those that leave, those that ask for too much: nobody's answer changes, nothing is kept."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import requests
from benchmarks.overload import overload

from tests.e2e.conftest import Launch
from tests.e2e.launched import REAL, Launched

SENTENCE = "The server takes many prompts at once, gives each of them blocks of the cache and returns tokens. "
STOPS = [[], [], ["e"], ["th", "0"], ["ing", "\n"]]
SAMPLINGS: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "temperature": 0.7},
    {"top_k": 20, "top_p": 0.9},
    {"typical_p": 0.8, "repetition_penalty": 1.2},
    {"do_sample": True, "frequency_penalty": 0.5},
    {"watermark": True},
]
IDLE = {"tgi_kv_cache_usage": 0.0, "tgi_queue_size": 0.0, "tgi_batch_current_size": 0.0}


def mixed(generator: random.Random, count: int) -> list[dict[str, Any]]:
    """Bodies of mixed lengths, samplings, seeds and stops."""
    bodies = []
    for number in range(count):
        start = generator.randrange(len(SENTENCE))
        prompt = f"{number}: " + (SENTENCE[start:] + SENTENCE * 3)[: generator.randrange(1, 200)]
        parameters = {
            **generator.choice(SAMPLINGS),
            "max_new_tokens": generator.randrange(1, 48),
            "seed": generator.getrandbits(63),
            "stop": generator.choice(STOPS),
            "details": True,
        }
        bodies.append({"inputs": prompt, "parameters": parameters})
    return bodies


@asynccontextmanager
async def client_of(server: Launched) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
        yield client


async def stream(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    """Token ids, text and reason of one stream."""
    events = []
    async with client.stream("POST", "/generate_stream", json=body) as response:
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                events.append(json.loads(line[5:]))
    last = events[-1]
    assert "error" not in last, last
    ids = [event["token"]["id"] for event in events]
    return {"ids": ids, "text": last["generated_text"], "reason": last["details"]["finish_reason"]}


@pytest.fixture(scope="module")
def solo() -> dict[str, dict[str, Any]]:
    """What each body is answered when nobody else asks, of all tests that want to know."""
    return {}


async def alone_of(
    client: httpx.AsyncClient, bodies: list[dict[str, Any]], solo: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """The answers of `solo`; those that are not known yet are asked for, one after the other."""
    answers = []
    for body in bodies:
        name = json.dumps(body)
        if name not in solo:
            solo[name] = await stream(client, body)
        answers.append(solo[name])
    return answers


def gauges(server: Launched, names: Iterable[str] = IDLE) -> dict[str, float]:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(values[name]) for name in names}


def wait_until_idle(server: Launched, timeout: float = 15.0) -> None:
    """No blocks held, nothing queued, nothing running: said by the metrics."""
    deadline = time.monotonic() + timeout
    while gauges(server) != IDLE:
        assert time.monotonic() < deadline, gauges(server)
        time.sleep(0.05)


async def near_ties(client: httpx.AsyncClient, count: int) -> int:
    """How many of so many answers may differ: none with the native kernels, whose sums have one order in any batch."""
    kernels = (await client.get("/info")).json()["runtime"]["kernels"]
    return 0 if kernels.get("step", "").startswith("native") else count // 16


async def test_128_streams_equal_their_solo_runs(cramped: Launched, solo: dict[str, dict[str, Any]]) -> None:
    bodies = mixed(random.Random(1), 128)
    async with client_of(cramped) as client:
        together = await asyncio.gather(*(stream(client, body) for body in bodies))
        alone = await alone_of(client, bodies, solo)
        allowed = await near_ties(client, 128)
    different = [number for number in range(128) if together[number] != alone[number]]
    assert len(different) <= allowed, [(bodies[n], together[n], alone[n]) for n in different]
    assert {one["reason"] for one in alone} == {"length", "eos_token", "stop_sequence"}
    await asyncio.to_thread(wait_until_idle, cramped)


async def test_streams_that_push_each_other_out(cramped: Launched) -> None:
    """Together they need twice the cache: some are put back and computed again, and nobody can tell."""
    bodies = [
        {"inputs": f"{number}: {SENTENCE}", "parameters": {"max_new_tokens": 200, "ignore_eos": True, "details": True}}
        for number in range(12)
    ]
    async with client_of(cramped) as client:
        together = await asyncio.gather(*(stream(client, body) for body in bodies))
        assert gauges(cramped, ["tgi_preemptions"])["tgi_preemptions"] > 0
        alone = [await stream(client, body) for body in bodies]
        different = [number for number in range(12) if together[number] != alone[number]]
        assert len(different) <= await near_ties(client, 12)


async def test_clients_that_vanish(cramped: Launched, solo: dict[str, dict[str, Any]]) -> None:
    """64 of 128 leave at random moments, streaming or not, queued or running."""
    generator = random.Random(2)
    staying = mixed(random.Random(1), 128)[:64]
    leaving = [
        {"inputs": SENTENCE[number:], "parameters": {"max_new_tokens": 400, "ignore_eos": True}} for number in range(64)
    ]
    async with client_of(cramped) as client:
        alone = await alone_of(client, staying, solo)

        async def leave(body: dict[str, Any], number: int) -> None:
            path = "/generate_stream" if number % 2 else "/generate"
            try:
                async with asyncio.timeout(generator.uniform(0, 1)):
                    async with client.stream("POST", path, json=body) as response:
                        await response.aread()
            except TimeoutError:
                return

        allowed = await near_ties(client, 64)
        stayed, _ = await asyncio.gather(
            asyncio.gather(*(stream(client, body) for body in staying)),
            asyncio.gather(*(leave(body, number) for number, body in enumerate(leaving))),
        )
    await asyncio.to_thread(wait_until_idle, cramped)
    assert sum(one != other for one, other in zip(stayed, alone, strict=True)) <= allowed
    dropped = 'tgi_request_failure{err="dropped"}'
    assert gauges(cramped, [dropped])[dropped] > 0


async def test_a_request_that_can_never_fit(cramped: Launched) -> None:
    """It fits the model's context and not the cache: refused at once, however much is going on."""
    async with client_of(cramped) as client:
        tokens = (await client.get("/info")).json()["runtime"]["max_batch_total_tokens"]
        assert tokens < 2048
        busy = [asyncio.create_task(stream(client, body)) for body in mixed(random.Random(3), 32)]
        began = time.monotonic()
        response = await client.post("/v1/completions", json={"prompt": [40] * (tokens + 1), "max_tokens": 1})
        took = time.monotonic() - began
        await asyncio.gather(*busy)
    assert response.status_code == 422
    assert f"must be <= {tokens}" in response.json()["error"]["message"]
    assert took < 5


async def test_two_prompts_of_the_greatest_length_at_once(cramped: Launched) -> None:
    """Each needs the whole cache."""

    async def complete(client: httpx.AsyncClient, length: int, first: int) -> httpx.Response:
        body = {"prompt": [first] + [40] * (length - 1), "max_tokens": 1, "temperature": 0}
        return await client.post("/v1/completions", json=body)

    async with client_of(cramped) as client:
        limit = (await client.get("/info")).json()["max_input_tokens"]
        for length in (limit - 1, limit):
            answers = await asyncio.gather(complete(client, length, 41), complete(client, length, 42))
            assert [answer.status_code for answer in answers] == [200, 200]
            assert [answer.json()["usage"]["prompt_tokens"] for answer in answers] == [length, length]
        assert (await complete(client, limit + 1, 41)).status_code == 422


@pytest.mark.parametrize("path", ["/generate", "/"])
def test_every_parameter(cramped: Launched, path: str) -> None:
    parameters = {
        "best_of": 2,
        "details": True,
        "return_full_text": True,
        "decoder_input_details": True,
        "truncate": 4,
        "max_new_tokens": 128,
        "stop": ["\n", "."],
        "do_sample": True,
        "temperature": 0.5,
        "top_k": 10,
        "top_p": 0.95,
    }
    body = {"inputs": "What is deep learning?", "parameters": parameters}
    response = requests.post(cramped.url + path, json=body, timeout=60)
    assert response.status_code == 200
    answer = response.json() if path == "/generate" else response.json()[0]
    assert answer["generated_text"].startswith("What is deep learning?")
    details = answer["details"]
    assert [token["text"] for token in details["prefill"]] == ["<s>", "p", " learning", "?"]
    assert details["prefill"][0]["logprob"] is None
    assert all(token["logprob"] < 0 for token in details["prefill"][1:])
    assert len(details["best_of_sequences"]) == 1
    assert details["finish_reason"] in ("length", "stop_sequence", "eos_token")


def test_128_threads_with_paragraphs(cramped: Launched) -> None:
    parameters = {"max_new_tokens": 100, "stop": ["\n\n"], "temperature": 0.7, "top_k": 50, "top_p": 0.9}

    def ask(number: int) -> str:
        body = {"inputs": f"Paragraph {number}. {SENTENCE}", "parameters": parameters}
        response = requests.post(cramped.url, json=body, timeout=100)
        assert response.status_code == 200, response.text
        return response.json()[0]["generated_text"]

    with ThreadPoolExecutor(128) as threads:
        texts = list(threads.map(ask, range(128)))
    assert all(text.startswith(f"Paragraph {number}. ") for number, text in enumerate(texts))


async def test_overload(launch: Launch) -> None:
    """Ten times more clients than permits: admitted ones finish, refusals say when to come back, memory stays flat.

    What a refusal costs is for `benchmarks.overload` to say.
    """
    limits = ("--max-concurrent-requests", "8", "--max-queue", "0")
    server = launch(*limits, "--kv-cache-memory", "16MiB", "--threads", "1", program=REAL)
    outcome = await overload(server.connected().url, permits=8, seconds=4, pid=server.pid)
    assert {response.status_code for response in outcome.admitted} == {200}
    assert {len(response.json()["details"]["tokens"]) for response in outcome.admitted} == {32}
    assert len(outcome.refused) > 50
    for response in outcome.refused:
        assert response.json() == {"error": "Model is overloaded", "error_type": "overloaded"}
        assert 1 <= int(response.headers["retry-after"]) <= 60
    await asyncio.to_thread(wait_until_idle, server)
    assert outcome.memory[-1] - outcome.memory[0] < 64 << 20
