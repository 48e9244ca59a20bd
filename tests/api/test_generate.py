"""TGI's own generation routes: shapes, bytes and headers."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest

from tests.api.fake import EOS, FakeEngine, build_app, ids_of
from tgi.api.server import call

ALL_PARAMETERS = {
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


async def generate(client: httpx.AsyncClient, inputs: str = "x", /, **parameters: Any) -> Any:
    answer = await client.post("/generate", json={"inputs": inputs, "parameters": parameters})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def events(client: httpx.AsyncClient, inputs: str = "x", /, **parameters: Any) -> list[Any]:
    answer = await client.post("/generate_stream", json={"inputs": inputs, "parameters": parameters})
    assert answer.status_code == 200
    lines = answer.text.split("\n\n")
    assert lines.pop() == ""
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def test_generate(client: httpx.AsyncClient) -> None:
    answer = await client.post("/generate", json={"inputs": "Hello, "})
    assert answer.status_code == 200
    assert answer.content == b'{"generated_text":"Hello world"}'


async def test_root_is_an_array_with_the_prompt(client: httpx.AsyncClient) -> None:
    answer = await client.post("/", json={"inputs": "Say: ", "parameters": {"max_new_tokens": 5}})
    assert answer.json() == [{"generated_text": "Say: Hello"}]


@pytest.mark.parametrize(("tag", "text"), [(None, "x!"), ("text-generation", "x!"), ("text2text-generation", "!")])
async def test_root_default_of_return_full_text(tag: str | None, text: str) -> None:
    """The pipeline tag decides; null is the same as absent."""
    app = build_app(FakeEngine(reply="!"), pipeline_tag=tag)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.post("/", json={"inputs": "x", "parameters": {"return_full_text": None}})
        assert answer.json() == [{"generated_text": text}]
        answer = await client.post("/", json={"inputs": "x", "parameters": {"return_full_text": False}})
        assert answer.json() == [{"generated_text": "!"}]


async def test_root_streams_as_generate_stream(client: httpx.AsyncClient) -> None:
    body = {"inputs": "x", "parameters": {"max_new_tokens": 2, "return_full_text": False, "details": True}}
    streamed = await client.post("/", json={**body, "stream": True})
    assert streamed.content == (await client.post("/generate_stream", json=body)).content


async def test_stream_bytes(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/generate_stream", json={"inputs": "x", "parameters": {"max_new_tokens": 2, "details": True}}
    )
    h, e = ids_of("He")
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.content.decode() == (
        f'data: {{"index":1,"token":{{"id":{h},"text":"H","logprob":-0.5,"special":false}},'
        '"generated_text":null,"details":null}\n\n'
        f'data: {{"index":2,"token":{{"id":{e},"text":"e","logprob":-0.5,"special":false}},'
        '"generated_text":"He","details":{"finish_reason":"length","generated_tokens":2,"seed":null,'
        '"input_length":2}}\n\n'
    )


async def test_stream_ends_with_the_eos_token(client: httpx.AsyncClient) -> None:
    last = (await events(client, "p:", return_full_text=True))[-1]
    assert last == {
        "index": 12,
        "token": {"id": EOS, "text": "</s>", "logprob": -0.5, "special": True},
        "generated_text": "p:Hello world",
        "details": None,
    }


async def test_stream_top_tokens(client: httpx.AsyncClient) -> None:
    first, *_ = await events(client, top_n_tokens=2, max_new_tokens=1)
    assert [token["logprob"] for token in first["top_tokens"]] == [-0.5, -1.5]
    assert list(first) == ["index", "token", "top_tokens", "generated_text", "details"]


async def test_sampling_defaults(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Without `parameters` TGI samples; with an empty object it is greedy."""
    await client.post("/generate", json={"inputs": "x"})
    await client.post("/generate", json={"inputs": "x", "parameters": None})
    await client.post("/generate", json={"inputs": "x", "parameters": {}})
    assert [request.sampling.do_sample for request in engine.requests] == [True, True, False]


async def test_temperature_zero_is_greedy(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    details = (await generate(client, temperature=0, details=True))["details"]
    assert details["seed"] is None
    assert not engine.requests[0].sampling.do_sample


async def test_all_parameters(client: httpx.AsyncClient) -> None:
    """The call of TGI's documentation: the prompt is truncated, the text is whole, the loser is listed."""
    answer = await generate(client, "My name is Olivier", **ALL_PARAMETERS)
    details = answer["details"]
    assert answer["generated_text"] == "My name is OlivierHello world"
    assert [token["text"] for token in details["prefill"]] == ["<s>", "i", "e", "r"]
    assert [token["logprob"] for token in details["prefill"]] == [None, -1.125, -1.25, -1.375]
    assert list(details["prefill"][0]) == ["id", "text", "logprob"]
    (loser,) = details["best_of_sequences"]
    assert loser["generated_text"] == "My name is Olivierello world"
    assert details["tokens"][0]["logprob"] > loser["tokens"][0]["logprob"]


async def test_best_of_keeps_the_likelier(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """The engine's later samples are less likely; reversed, the later one must win."""
    engine.worst_first = True
    answer = await generate(client, best_of=2, do_sample=True, details=True)
    assert answer["generated_text"] == "ello world"
    assert answer["details"]["best_of_sequences"][0]["generated_text"] == "Hello world"


async def test_details_are_left_out_unless_asked_for(client: httpx.AsyncClient) -> None:
    assert list(await generate(client)) == ["generated_text"]
    details = (await generate(client, details=True))["details"]
    assert list(details) == ["finish_reason", "generated_tokens", "seed", "prefill", "tokens"]
    assert "details" in await generate(client, decoder_input_details=True)


async def test_stop_string_stays_in_the_text(client: httpx.AsyncClient) -> None:
    answer = await generate(client, stop=["lo w"], details=True)
    assert answer["generated_text"] == "Hello w"
    assert answer["details"]["finish_reason"] == "stop_sequence"
    assert (await events(client, stop=["lo w"]))[-1]["generated_text"] == "Hello w"


async def test_incomplete_character_at_the_end_is_left_out(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.reply = "a€b"
    answer = await generate(client, max_new_tokens=3, details=True)
    assert answer["generated_text"] == "a"
    assert [token["text"] for token in answer["details"]["tokens"]] == ["a", "", ""]


async def test_seed_is_reported_when_sampling(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    details = (await generate(client, seed=7, do_sample=True, details=True))["details"]
    assert details["seed"] == 7
    assert engine.requests[0].seeds == (7,)
    assert isinstance((await generate(client, do_sample=True, details=True))["details"]["seed"], int)


async def test_long_generation_is_one(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """TGI would fail or restart; here the context's end is the end."""
    answer = await generate(client, max_new_tokens=100, ignore_eos=True, details=True)
    assert answer["details"]["generated_tokens"] == 100
    assert len(engine.requests) == 1


async def test_min_tokens(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    answer = await generate(client, min_tokens=20, max_new_tokens=20, details=True)
    assert answer["details"]["generated_tokens"] == 20
    for path, body, tokens in (
        ("/", {"inputs": "x", "parameters": {"max_new_tokens": 20}}, "parameters"),
        ("/generate_stream", {"inputs": "x", "parameters": {"max_new_tokens": 20}}, "parameters"),
        ("/v1/completions", {"prompt": "x", "max_tokens": 20}, None),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 20}, None),
    ):
        for knob in ({"min_tokens": 20}, {"ignore_eos": True}):
            asked = {**body, tokens: {**body[tokens], **knob}} if tokens else {**body, **knob}
            answer = await client.post(path, json=asked)
            assert answer.status_code == 200
            assert "x-tgi-ignored" not in answer.headers
            assert engine.requests[-1].sampling.min_new_tokens == knob.get("min_tokens", 0)
            assert bool(engine.requests[-1].sampling.eos_token_ids) != ("ignore_eos" in knob)


async def test_penalties_reach_the_engine(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await generate(client, frequency_penalty=0.5, repetition_penalty=1.5, watermark=True, typical_p=0.5)
    sampling = engine.requests[0].sampling
    assert (sampling.frequency_penalty, sampling.repetition_penalty) == (0.5, 1.5)
    assert (sampling.watermark, sampling.typical_p, sampling.raw_logprobs) == (True, 0.5, False)


async def test_headers(client: httpx.AsyncClient) -> None:
    answer = await client.post("/generate", json={"inputs": "Grüße"})
    headers = answer.headers
    assert headers["x-compute-type"] == "cpu"
    assert headers["x-compute-characters"] == "5"
    assert headers["x-prompt-tokens"] == "8"
    assert headers["x-generated-tokens"] == "12"
    assert float(headers["x-compute-time"]) > 0
    for name in ("x-total-time", "x-validation-time", "x-queue-time", "x-inference-time", "x-time-per-token"):
        assert headers[name].isdecimal()
    assert "x-accel-buffering" not in headers


async def test_stream_headers(client: httpx.AsyncClient) -> None:
    headers = (await client.post("/generate_stream", json={"inputs": "Grüße"})).headers
    assert headers["x-compute-type"] == "cpu"
    assert headers["x-compute-characters"] == "5"
    assert headers["x-accel-buffering"] == "no"
    assert headers["cache-control"] == "no-cache"
    assert "x-compute-time" not in headers
    assert "x-total-time" not in headers


async def test_tokenize(client: httpx.AsyncClient) -> None:
    """Special tokens are added, have no text, and `truncate` has no effect; offsets are bytes."""
    answer = await client.post("/tokenize", json={"inputs": "aé", "parameters": {"truncate": 1}})
    a, first, second = ids_of("aé")
    assert answer.json() == [
        {"id": 256, "text": "", "start": 0, "stop": 0},
        {"id": a, "text": "a", "start": 0, "stop": 1},
        {"id": first, "text": "é", "start": 1, "stop": 3},
        {"id": second, "text": "é", "start": 1, "stop": 3},
    ]
    assert {name: value for name, value in answer.headers.items() if name.startswith("x-")} == {
        "x-tgi-ignored": "parameters.truncate"
    }


async def test_success_is_logged_without_texts(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, call.logger.name):
        await generate(client, "a secret prompt", top_k=3, do_sample=True, seed=5)
    (record,) = [record for record in caplog.records if record.message == "Success"]
    name, facts = record.__dict__["span"]
    assert name == "generate"
    assert facts["seed"] == "5"
    assert "'top_k': 3" in facts["parameters"]
    assert {"total_time", "validation_time", "queue_time", "inference_time", "time_per_token"} <= set(facts)
    assert "secret" not in str(facts)


async def test_errors_are_logged(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    await client.post("/generate", json={"inputs": ""})
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.message == "Input validation error: `inputs` cannot be empty"
