"""Bodies that are not what the route takes: status, JSON and the name of the field, never a 500."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.fake import FakeEngine, build_app
from tgi.api.tgi.types import GenerateParameters

ROUTES = ["/", "/generate", "/generate_stream", "/tokenize", "/vertex", "/chat_tokenize", "/detokenize", "/invocations"]
OPENAI_ROUTES = ["/v1/chat/completions", "/v1/completions"]
JSON = {"content-type": "application/json"}


async def post(client: httpx.AsyncClient, route: str, content: bytes, **headers: str) -> httpx.Response:
    return await client.post(route, content=content, headers={**JSON, **headers})


def message(route: str, answer: httpx.Response) -> str:
    """The sentence, after checking the shape that the route's clients expect."""
    body = answer.json()
    assert body["error_type"] == "validation"
    if route not in OPENAI_ROUTES:
        assert set(body) == {"error", "error_type"}
        return body["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["type"] == "invalid_request_error"
    return body["error"]["message"]


@pytest.mark.parametrize("route", ROUTES + OPENAI_ROUTES)
@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"not json", 400),
        (b'{"inputs":', 400),
        (b"\xef\xbb\xbf{}", 400),
        (b'{"inputs":NaN}', 400),
        (b'{"inputs":"x","prompt":"x","messages":[],"temperature":1e400}', 400),
        (b'{"inputs":"\xff\xfe"}', 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400),
        (b"[]", 422),
        (b"null", 422),
        (b'"text"', 422),
        (b"1", 422),
        (b"{}", 422),
        (b'{"inputs":null,"prompt":null,"messages":null,"instances":null}', 422),
    ],
)
async def test_status_and_shape(client: httpx.AsyncClient, route: str, content: bytes, status: int) -> None:
    answer = await post(client, route, content)
    assert answer.status_code == status
    assert message(route, answer)


@pytest.mark.parametrize("route", ROUTES + OPENAI_ROUTES)
async def test_content_type(client: httpx.AsyncClient, route: str) -> None:
    answer = await client.post(route, content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert message(route, answer) == (
        "Expected request with `Content-Type: application/json`. Given: `text/plain`; "
        "add the header, with curl by -H 'Content-Type: application/json'"
    )
    answer = await client.post(route, content=b"{}")
    assert answer.status_code == 415
    assert "Given: none; add the header" in message(route, answer)


async def test_content_types_that_are_json(client: httpx.AsyncClient) -> None:
    for content_type in ("application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"):
        answer = await client.post("/generate", content=b'{"inputs":"x"}', headers={"content-type": content_type})
        assert answer.status_code == 200


@pytest.mark.parametrize("route", ROUTES + OPENAI_ROUTES)
async def test_too_large(route: str) -> None:
    app = build_app(FakeEngine(), payload_limit=100)

    async def chunks() -> Any:  # without a content-length
        for _ in range(20):
            yield b" " * 10

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for content in (b" " * 101, chunks()):
            answer = await client.post(route, content=content, headers=JSON)
            assert answer.status_code == 413
            assert message(route, answer) == "Failed to buffer the request body: length limit exceeded"


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("/generate", {"inputs": 1}, "inputs"),
        ("/generate", {"inputs": "x", "parameters": []}, "parameters"),
        ("/generate", {"inputs": "x", "parameters": {"max_new_tokens": "1"}}, "parameters.max_new_tokens"),
        ("/generate", {"inputs": "x", "parameters": {"max_new_tokens": True}}, "parameters.max_new_tokens"),
        ("/generate", {"inputs": "x", "parameters": {"max_new_tokens": 1.0}}, "parameters.max_new_tokens"),
        ("/generate", {"inputs": "x", "parameters": {"max_new_tokens": -1}}, "parameters.max_new_tokens"),
        ("/generate", {"inputs": "x", "parameters": {"top_k": 2**31}}, "parameters.top_k"),
        ("/generate", {"inputs": "x", "parameters": {"seed": 2**64}}, "parameters.seed"),
        ("/generate", {"inputs": "x", "parameters": {"temperature": 1e308}}, "parameters.temperature"),
        ("/generate", {"inputs": "x", "parameters": {"temperature": True}}, "parameters.temperature"),
        ("/generate", {"inputs": "x", "parameters": {"stop": "text"}}, "parameters.stop"),
        ("/generate", {"inputs": "x", "parameters": {"stop": ["a", 1]}}, "parameters.stop[1]"),
        ("/generate", {"inputs": "x", "parameters": {"do_sample": 1}}, "parameters.do_sample"),
        ("/", {"inputs": "x", "stream": "yes"}, "stream"),
        ("/v1/chat/completions", {"messages": "hi"}, "messages"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ("/v1/chat/completions", {"messages": [{"content": "x"}]}, "messages[0]"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages[0].content[0]",
        ),
        ("/v1/chat/completions", {"messages": [{"role": "u", "content": "x"}], "stop": 1}, "stop"),
        ("/v1/chat/completions", {"messages": [{"role": "u", "content": "x"}], "logit_bias": "x"}, "logit_bias"),
        ("/v1/chat/completions", {"messages": [{"role": "u", "content": "x"}], "logprobs": 1}, "logprobs"),
        ("/v1/completions", {"prompt": {}}, "prompt"),
        ("/v1/completions", {"prompt": [1, "a"]}, "prompt"),
        ("/v1/completions", {"prompt": [True]}, "prompt"),
        ("/v1/completions", {"prompt": "x", "logprobs": True}, "logprobs"),
    ],
)
async def test_wrong_type_names_the_field(
    client: httpx.AsyncClient, route: str, body: dict[str, Any], field: str
) -> None:
    answer = await client.post(route, json=body)
    assert answer.status_code == 422
    assert f": {field}: " in message(route, answer)
    if route in OPENAI_ROUTES:
        assert answer.json()["error"]["param"] == field


async def test_missing_field(client: httpx.AsyncClient) -> None:
    answer = await client.post("/generate", json={"parameters": {}})
    assert message("/generate", answer).endswith("missing field `inputs`")


PARAMETERS = list(GenerateParameters.model_fields)


async def test_null_is_absent(client: httpx.AsyncClient) -> None:
    """Everywhere, so that clients which send every field work."""
    nulls = dict.fromkeys(PARAMETERS)
    answer = await client.post("/", json={"inputs": "x", "parameters": nulls, "stream": None})
    assert answer.json() == [{"generated_text": "xHello world"}]
    chat = "model max_tokens temperature top_p stop seed n stream stream_options logprobs tools tool_choice logit_bias"
    messages = [{"role": "user", "content": "x", "name": None, "tool_calls": None}]
    answer = await client.post("/v1/chat/completions", json={"messages": messages, **dict.fromkeys(chat.split())})
    assert answer.json()["choices"][0]["message"]["content"] == "Hello world"
    assert "x-tgi-ignored" not in answer.headers


async def test_unknown_fields_are_named(client: httpx.AsyncClient) -> None:
    body = {"inputs": "x", "extra": 1, "null": None, "parameters": {"max_tokens": 3, "ev\nil ü": 1}}
    for route in ("/generate", "/generate_stream", "/"):
        answer = await client.post(route, json=body)
        assert answer.status_code == 200
        assert answer.headers["x-tgi-ignored"] == (
            "extra, parameters.ev?il??, parameters.max_tokens (did you mean max_new_tokens?)"
        )
    answer = await client.post("/generate", json={"inputs": "x", **{f"f{i}": 1 for i in range(1000)}})
    assert len(answer.headers["x-tgi-ignored"]) < 1000


async def test_duplicate_keys(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/generate", b'{"inputs":"x","inputs":"y","parameters":{},"parameters":{}}')
    assert answer.status_code == 200


@pytest.mark.parametrize("text", ['"\\ud800"', '"a\\udc00b"', '"\\u0000"', '"\\ud83d\\ude00"'])
@pytest.mark.parametrize("route", ["/generate", "/tokenize", "/v1/completions", "/v1/chat/completions", "/vertex"])
async def test_strange_characters(client: httpx.AsyncClient, route: str, text: str) -> None:
    """Half a surrogate pair is the client's mistake; NUL and emoji are text."""
    bodies = {
        "/v1/completions": f'{{"prompt":{text}}}',
        "/v1/chat/completions": f'{{"messages":[{{"role":"user","content":{text}}}]}}',
        "/vertex": f'{{"instances":[{{"inputs":{text}}}]}}',
    }
    answer = await post(client, route, bodies.get(route, f'{{"inputs":{text}}}').encode())
    half = ("\\ud8" in text and "\\ude" not in text) or "\\udc" in text
    assert answer.status_code in ((400, 422) if half else (200,)), answer.text
