"""Fields of the OpenAI routes: their names in errors, values that mean "off", limits, and how an answer ends."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.fake import EOS, FakeEngine, build_app, ids_of

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hi"}]},
    COMPLETIONS: {"prompt": "Hi"},
}
TGI_NAMES = ("inputs", "max_new_tokens", "top_n_tokens", "decoder_input_details")
BOTH = (CHAT, COMPLETIONS)
CONTEXT = "This model's maximum context length is 256 tokens"
"""What litellm, for one, knows such errors by."""
LONGEST = f"{CONTEXT}: `prompt` must have at most 255 tokens. Given:"


def client_of(engine: FakeEngine | None = None, **settings: Any) -> httpx.AsyncClient:
    app = build_app(engine or FakeEngine(), **settings)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def error(path: str, client: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await client.post(path, json=BODIES[path] | fields)
    assert answer.status_code == 422, answer.text
    return answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "fields", "param", "words"),
    [
        (CHAT, {"max_tokens": 0}, "max_tokens", "`max_tokens` must be strictly positive"),
        (CHAT, {"max_completion_tokens": 0}, "max_completion_tokens", "`max_completion_tokens` must be"),
        (CHAT, {"logprobs": True, "top_logprobs": 6}, "top_logprobs", "`top_logprobs` must be >= 0 and <= 5"),
        (COMPLETIONS, {"logprobs": 6}, "logprobs", "`logprobs` must be >= 0 and <= 5. Given: 6"),
        (COMPLETIONS, {"max_tokens": 5, "min_tokens": 6}, "min_tokens", "must be >= 0 and <= `max_tokens`"),
        (COMPLETIONS, {"max_completion_tokens": 5, "min_tokens": 6}, "min_tokens", "<= `max_completion_tokens`"),
        (COMPLETIONS, {"prompt": ""}, "prompt", "`prompt` cannot be empty"),
        (COMPLETIONS, {"prompt": [999]}, "prompt", "`prompt` token id 999 is"),
        (CHAT, {"max_tokens": 300}, "max_tokens", f"{CONTEXT}: `messages` tokens + `max_tokens` must be <= 256"),
        (COMPLETIONS, {"max_tokens": 9999}, "max_tokens", "Given: 3 `prompt` tokens and 9999 `max_tokens`"),
        (COMPLETIONS, {"prompt": "x" * 300}, "prompt", f"{LONGEST} 301"),
        (COMPLETIONS, {"prompt": "x" * 255}, "prompt", f"{LONGEST} 256"),
        (COMPLETIONS, {"prompt": "x" * 9000}, "prompt", f"{LONGEST} at least"),
        (CHAT, {"temperature": -0.1}, "temperature", "or 0 for greedy. Given: -0.1"),
        (CHAT, {"top_p": 1.1}, "top_p", "`top_p` must be >= 0.0 and <= 1.0. Given: 1.1"),
        (CHAT, {"top_k": -2}, "top_k", "`top_k` must be strictly positive, or 0 or -1 for off. Given: -2"),
    ],
)
async def test_errors_name_the_fields_of_the_request(path: str, fields: Any, param: str, words: str) -> None:
    """And are right at the bounds: TGI says "less than" where equality is taken."""
    async with client_of() as client:
        for stream in (False, True):
            body = await error(path, client, stream=stream, **fields)
            assert (body["param"], words in body["message"]) == (param, True), body["message"]
            assert not [name for name in TGI_NAMES if f"`{name}`" in body["message"]]


async def test_the_longest_prompt_is_taken(client: httpx.AsyncClient) -> None:
    """The error above says "at most 255"."""
    assert (await client.post(COMPLETIONS, json={"prompt": "x" * 254, "max_tokens": 1})).status_code == 200


@pytest.mark.parametrize("path", BOTH)
async def test_values_that_mean_off(client: httpx.AsyncClient, engine: FakeEngine, path: str) -> None:
    off = [{"top_k": -1}, {"top_k": 0}, {"top_p": 0}, {"top_p": 0.0}, {"top_p": 1}, {"typical_p": 1}, {"typical_p": 0}]
    for fields in [*off, {"top_k": -1, "top_p": 1, "typical_p": 1.0}]:
        answer = await client.post(path, json=BODIES[path] | {"temperature": 0.7} | fields)
        assert answer.status_code == 200, answer.text
        sampling = engine.requests[-1].sampling
        assert (sampling.top_k, sampling.top_p, sampling.typical_p, sampling.do_sample) == (0, 1.0, 1.0, True)
    answer = await client.post("/generate", json={"inputs": "x", "parameters": {"top_k": 0}})
    assert answer.json()["error"] == "Input validation error: `top_k` must be strictly positive", "TGI's routes refuse"


@pytest.mark.parametrize(("path", "field"), [(CHAT, "top_logprobs"), (COMPLETIONS, "logprobs")])
async def test_twenty_alternatives_where_the_server_allows_them(path: str, field: str) -> None:
    async with client_of(max_top_n_tokens=20) as client:
        answer = await client.post(path, json=BODIES[path] | {"logprobs": True, "max_tokens": 1} | {field: 20})
        logprobs = answer.json()["choices"][0]["logprobs"]
        top = logprobs["content"][0]["top_logprobs"] if path == CHAT else logprobs["top_logprobs"][0]
        assert len(top) == 20
        assert "<= 20. Given: 21" in (await error(path, client, **{"logprobs": True, field: 21}))["message"]


@pytest.mark.parametrize("path", BOTH)
async def test_as_many_stops_as_the_server_allows(path: str) -> None:
    async with client_of(max_stop_sequences=16) as client:
        stops = [f"<{number}>" for number in range(16)]
        assert (await client.post(path, json=BODIES[path] | {"stop": stops})).status_code == 200
        assert "up to 16 stop sequences. Given: 17" in (await error(path, client, stop=[*stops, "x"]))["message"]


@pytest.mark.parametrize("path", BOTH)
async def test_max_completion_tokens(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json=BODIES[path] | {"max_completion_tokens": 2})
    assert answer.json()["usage"]["completion_tokens"] == 2
    assert "x-tgi-ignored" not in answer.headers
    body = await error(path, client, max_tokens=2, max_completion_tokens=2)
    assert "`max_tokens` and `max_completion_tokens` are the same field" in body["message"]


async def test_a_completion_of_no_tokens_by_the_other_name(client: httpx.AsyncClient) -> None:
    body = {"prompt": "ab", "echo": True, "max_completion_tokens": 0}
    answer = (await client.post(COMPLETIONS, json=body)).json()
    assert (answer["choices"][0]["text"], answer["usage"]["completion_tokens"]) == ("ab", 0)


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize(
    ("fields", "text", "reason"),
    [
        ({"max_tokens": 12}, "Hello world", "stop"),  # the twelfth is the end token
        ({"max_tokens": 13}, "Hello world", "stop"),
        ({"max_tokens": 11}, "Hello world", "length"),
        ({"max_tokens": 12, "ignore_eos": True}, "Hello worldH", "length"),
        ({"max_tokens": 5, "stop_token_ids": ids_of("o")}, "Hell", "stop"),
        ({"max_tokens": 5, "stop_token_ids": ids_of("z")}, "Hello", "length"),
        ({"max_tokens": 5, "stop": "lo"}, "Hel", "stop"),
    ],
)
async def test_an_end_token_that_is_the_last_allowed_one(
    client: httpx.AsyncClient, path: str, fields: Any, text: str, reason: str
) -> None:
    """To clients `length` means that the text was cut."""
    choice = (await client.post(path, json=BODIES[path] | fields)).json()["choices"][0]
    said = choice["text"] if path == COMPLETIONS else choice["message"]["content"]
    assert (said, choice["finish_reason"]) == (text, reason)


async def test_tgis_routes_report_the_length_first(client: httpx.AsyncClient) -> None:
    body = {"inputs": "x", "parameters": {"max_new_tokens": 12, "details": True}}
    details = (await client.post("/generate", json=body)).json()["details"]
    assert (details["tokens"][-1]["id"], details["finish_reason"]) == (EOS, "length")
