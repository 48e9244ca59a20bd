"""`/v1/messages` over the scripted engine: golden answers and events, errors in Anthropic's shape."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.fake import FakeEngine, build_app, ids_of
from tests.api.marked import marked
from tgi.api.anthropic.blocks import arguments

__all__ = ["marked"]
ROUTE = "/v1/messages"
HI = {"role": "user", "content": "Hi"}
BODY = {"model": "tgi", "max_tokens": 100, "messages": [HI]}
Events = list[tuple[str, Any]]


def events_of(answer: httpx.Response) -> Events:
    """Names and payloads; the names are those of the payloads."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream"
    *events, rest = answer.text.split("\n\n")
    assert rest == ""
    found = []
    for one in events:
        name, data = one.split("\n")
        payload = json.loads(data.removeprefix("data: "))
        assert name == f"event: {payload['type']}"
        found.append((payload.pop("type"), payload))
    return found


def assembled(events: Events) -> dict[str, Any]:
    """The message that a client makes of the events, as Anthropic's documentation says."""
    (first, start), *rest = events
    assert first == "message_start"
    message = start["message"]
    assert message["content"] == [] and message["stop_reason"] is None
    texts: list[str] = []
    for name, payload in rest:
        if name == "content_block_start":
            assert payload["index"] == len(message["content"])
            message["content"].append(payload["content_block"])
            texts = []
        elif name == "content_block_delta":
            assert payload["index"] == len(message["content"]) - 1
            delta, block = payload["delta"], message["content"][-1]
            for kind, field in (("text", "text"), ("thinking", "thinking"), ("signature", "signature")):
                if delta["type"] == f"{kind}_delta":
                    block[field] += delta[field]
            if delta["type"] == "input_json_delta":
                texts.append(delta["partial_json"])
                block["text_of_input"] = "".join(texts)
        elif name == "message_delta":
            message |= {**payload["delta"], "usage": payload["usage"]}
    assert [name for name, _ in rest[-2:]] == ["message_delta", "message_stop"]
    for block in message["content"]:
        if block["type"] == "tool_use":
            text = block.pop("text_of_input", "")
            cut = message["stop_reason"] == "max_tokens"
            block["input"] = arguments(text) if cut else json.loads(text or "{}")
    return message


def usage(prompt: int, output: int, thinking: int = 0, cached: int = 0) -> dict[str, Any]:
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": output,
        "output_tokens_details": {"thinking_tokens": thinking},
    }


async def test_answer(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.cached_tokens = 16
    answer = await client.post(ROUTE, json=BODY)
    assert answer.status_code == 200
    assert re.fullmatch("req_[0-9a-f]{32}", answer.headers["request-id"])
    assert answer.headers["x-prompt-tokens"] == "19" and "x-tgi-ignored" not in answer.headers
    body = answer.json()
    assert re.fullmatch("msg_[0-9a-f]{32}", body.pop("id"))
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": "org/model",
        "content": [{"type": "text", "text": "Hello world"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage(19, 12, cached=16),
    }
    assert engine.requests[0].prompt_ids == ids_of("[user]Hi[assistant]")


async def test_stream_bytes(client: httpx.AsyncClient) -> None:
    answer = await client.post(ROUTE, json={**BODY, "stream": True, "max_tokens": 2})
    text = re.sub("msg_[0-9a-f]{32}", "ID", answer.text)
    counted = '"input_tokens":19,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens"'
    thought = '"output_tokens_details":{"thinking_tokens":0}'
    assert text == (
        'event: message_start\ndata: {"type":"message_start","message":{"type":"message","id":"ID",'
        '"role":"assistant","model":"org/model","content":[],"stop_reason":null,"stop_sequence":null,'
        f'"usage":{{{counted}:1,{thought}}}}}}}\n\n'
        'event: ping\ndata: {"type":"ping"}\n\n'
        'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        '"content_block":{"type":"text","text":""}}\n\n'
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        '"delta":{"type":"text_delta","text":"H"}}\n\n'
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        '"delta":{"type":"text_delta","text":"e"}}\n\n'
        'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
        'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"max_tokens",'
        f'"stop_sequence":null}},"usage":{{{counted}:2,{thought}}}}}\n\n'
        'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )


async def test_every_kind_of_block(client: httpx.AsyncClient, engine: FakeEngine, marked: Callable[..., Any]) -> None:
    engine.reply = '^Hm^\nOk \n{f|("a":1)}\n{g|()}\n'
    names = [
        f"{name} {payload.get('delta', payload.get('content_block', {})).get('type', '')}".strip()
        for name, payload in events_of(await client.post(ROUTE, json={**BODY, "stream": True}))
    ]
    assert names == [
        "message_start",
        "ping",
        "content_block_start thinking",
        *["content_block_delta thinking_delta"] * 2,
        "content_block_delta signature_delta",
        "content_block_stop",
        "content_block_start text",
        *["content_block_delta text_delta"] * 4,
        "content_block_stop",
        "content_block_start tool_use",
        *["content_block_delta input_json_delta"] * 7,
        "content_block_stop",
        "content_block_start tool_use",
        *["content_block_delta input_json_delta"] * 2,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    body = (await client.post(ROUTE, json=BODY)).json()
    signature = body["content"][0].pop("signature")
    assert re.fullmatch("[0-9a-f]{32}", signature)
    assert body["content"] == [
        {"type": "thinking", "thinking": "Hm"},
        {"type": "text", "text": "Ok \n"},
        {"type": "tool_use", "id": "call_0", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "call_1", "name": "g", "input": {}},
    ]
    assert body["stop_reason"] == "tool_use"
    assert body["usage"]["output_tokens_details"] == {"thinking_tokens": 3}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    reply=st.text("ab \n^", max_size=12).map(lambda text: text + "^" * (text.count("^") % 2))
    | st.lists(st.sampled_from(["^no^", "x", " ", '{f|("a":[1,2])}', "{g|()}", "\n"]), max_size=6).map("".join),
    per_event=st.integers(1, 5),
    max_tokens=st.integers(1, 40),
)
def test_streams_add_up_to_whole_answers(
    marked: Callable[..., Any], reply: str, per_event: int, max_tokens: int
) -> None:
    async def both() -> tuple[dict[str, Any], dict[str, Any]]:
        engine = FakeEngine(reply=reply)
        engine.per_event = per_event
        async with httpx.AsyncClient(transport=httpx.ASGITransport(build_app(engine)), base_url="http://t") as client:
            body = {**BODY, "max_tokens": max_tokens}
            whole = (await client.post(ROUTE, json=body)).json()
            return whole, assembled(events_of(await client.post(ROUTE, json={**body, "stream": True})))

    whole, streamed = asyncio.run(both())
    assert whole.pop("type") == streamed.pop("type") and whole.pop("id") != streamed.pop("id")
    assert whole == streamed
    blank = [block for block in whole["content"] if block["type"] == "text" and not block["text"].strip()]
    assert not blank or len(whole["content"]) == 1


async def test_stop_sequences(client: httpx.AsyncClient) -> None:
    for stream in (False, True):
        answer = await client.post(ROUTE, json={**BODY, "stop_sequences": ["xyz", "o w"], "stream": stream})
        body = assembled(events_of(answer)) if stream else answer.json()
        assert body["content"] == [{"type": "text", "text": "Hell"}]
        assert (body["stop_reason"], body["stop_sequence"]) == ("stop_sequence", "o w")


async def test_a_context_that_ends_first(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Clients ask for as much as Anthropic's models give: the answer ends where the context does."""
    engine.reply = "x" * 1000
    body = (await client.post(ROUTE, json={**BODY, "max_tokens": 32_000})).json()
    assert body["stop_reason"] == "model_context_window_exceeded"
    assert body["usage"]["output_tokens"] == 256 - 19
    body = (await client.post(ROUTE, json={**BODY, "max_tokens": 256 - 19})).json()
    assert body["stop_reason"] == "max_tokens"
    long = {**BODY, "messages": [{"role": "user", "content": "x" * 300}], "max_tokens": 32_000}
    answer = await client.post(ROUTE, json=long)
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["error"]["message"].startswith("prompt is too long: ")


async def test_sampling(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await client.post(ROUTE, json=BODY)
    await client.post(ROUTE, json={**BODY, "temperature": 0, "top_k": 5})
    await client.post(ROUTE, json={**BODY, "temperature": 0.5, "top_p": 0.9, "top_k": 5})
    default, greedy, sampled = (request.sampling for request in engine.requests)
    assert (default.do_sample, default.temperature) == (True, 1.0)
    assert not greedy.do_sample
    assert (sampled.temperature, sampled.top_p, sampled.top_k) == (0.5, 0.9, 5)


async def test_prefill(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await client.post(ROUTE, json={**BODY, "messages": [HI, {"role": "assistant", "content": "I am"}]})
    assert engine.requests[0].prompt_ids == ids_of("[user]Hi[assistant]I am")


async def test_count_tokens(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = {"model": "tgi", "messages": [HI], "system": "Be brief."}
    counted = await client.post(f"{ROUTE}/count_tokens", json=body)
    assert counted.status_code == 200 and counted.headers["request-id"].startswith("req_")
    await client.post(ROUTE, json={**body, "max_tokens": 1})
    assert counted.json() == {"input_tokens": len(engine.requests[0].prompt_ids)}
    refused = await client.post(f"{ROUTE}/count_tokens", json={"messages": []})
    assert refused.status_code == 400 and "`messages`" in refused.json()["error"]["message"]
    metrics = (await client.get("/metrics")).text
    assert re.search(r"^tgi_request_count\S* 1(\.0)?$", metrics, re.MULTILINE)  # counting is no generation


async def test_headers_of_other_versions_do_no_harm(client: httpx.AsyncClient) -> None:
    headers = {"anthropic-version": "2099-01-01", "anthropic-beta": "unheard-of-2099-01-01,other"}
    assert (await client.post(f"{ROUTE}?beta=true", json=BODY, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_tokens": None}, "missing field `max_tokens`"),
        ({"max_tokens": 0}, "`max_tokens`"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": -1}, "`temperature`"),
        ({"top_p": 2}, "`top_p`"),
        ({"stop_sequences": ["x"] * 5}, "`stop_sequences`"),
        ({"stop_sequences": [""]}, "`stop_sequences`"),
        ({"messages": []}, "`messages`"),
        ({"thinking": {"type": "enabled"}}, "`thinking.budget_tokens`"),
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, "`max_tokens` must be greater than"),
        ({"messages": [{"role": "bad", "content": "x"}]}, "messages[0].role"),
    ],
)
async def test_refused(client: httpx.AsyncClient, change: dict[str, Any], words: str) -> None:
    """400, in Anthropic's shape, with the field named; also for streams."""
    for stream in (False, True):
        answer = await client.post(ROUTE, json={**BODY, **change, "stream": stream})
        assert answer.status_code == 400
        body = answer.json()
        assert body["request_id"] == answer.headers["request-id"]
        assert (body["type"], body["error"]["type"], set(body)) == (
            "error",
            "invalid_request_error",
            {"type", "error", "request_id"},
        )
        assert words in body["error"]["message"]


async def test_a_format_that_cannot_be(client: httpx.AsyncClient) -> None:
    """The field is named as it was sent."""
    form = {"type": "json_schema", "schema": {"type": "nonsense"}}
    answer = await client.post(ROUTE, json={**BODY, "output_config": {"format": form}})
    assert answer.status_code == 400
    assert "`output_config.format` is not valid" in answer.json()["error"]["message"]


async def status_of(app: Any, content: bytes | None = None, **headers: str) -> tuple[int, str, str | None]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        body = json.dumps(BODY).encode() if content is None else content
        answer = await client.post(ROUTE, content=body, headers={"content-type": "application/json", **headers})
    body = answer.json()
    assert body["type"] == "error" and body["request_id"] == answer.headers["request-id"]
    return answer.status_code, body["error"]["type"], answer.headers.get("retry-after")


async def test_statuses() -> None:
    """Those that Anthropic's clients tell apart."""
    assert await status_of(build_app(FakeEngine(), api_key="key")) == (401, "authentication_error", None)
    app = build_app(FakeEngine(), payload_limit=1000)
    assert await status_of(app, b" " * 2000) == (413, "request_too_large", None)
    assert await status_of(app, b"{") == (400, "invalid_request_error", None)
    app.state.api.permits.take(16)
    status, kind, after = await status_of(app)
    assert (status, kind) == (529, "overloaded_error") and after is not None
    app.state.api.permits.draining = True
    assert (await status_of(app))[:2] == (503, "api_error")
    engine = FakeEngine()
    engine.fail_after = 0
    assert (await status_of(build_app(engine)))[:2] == (500, "api_error")
    engine.crash_after = 0
    assert (await status_of(build_app(engine)))[:2] == (500, "api_error")


async def test_unknown_paths(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{ROUTE}/batches", json={})
    assert answer.status_code == 404 and answer.json()["error"]["type"] == "not_found_error"
    answer = await client.get(ROUTE)
    assert answer.status_code == 405 and answer.json()["type"] == "error"


async def test_a_stream_that_fails(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.fail_after = 2
    *events, (name, payload) = events_of(await client.post(ROUTE, json={**BODY, "stream": True}))
    assert events[0][0] == "message_start"
    assert name == "error" and payload["error"]["type"] == "api_error"
    assert "the device caught fire" in payload["error"]["message"]
    engine.fail_after = 0
    answer = await client.post(ROUTE, json={**BODY, "stream": True})
    assert answer.status_code == 500
