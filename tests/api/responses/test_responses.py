"""`/v1/responses` over the scripted engine: golden answers and events, what is kept, truncation, errors."""

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

__all__ = ["marked"]
ROUTE = "/v1/responses"
BODY: dict[str, Any] = {"model": "tgi", "input": "Hi"}
Events = list[dict[str, Any]]


def events_of(answer: httpx.Response) -> Events:
    """Payloads; names and numbers are as they should be."""
    assert answer.status_code == 200, answer.text
    *events, rest = answer.text.split("\n\n")
    assert rest == ""
    found = []
    for number, one in enumerate(events):
        name, data = one.split("\n")
        payload = json.loads(data.removeprefix("data: "))
        assert name == f"event: {payload['type']}"
        assert payload.pop("sequence_number") == number
        found.append(payload)
    return found


def assembled(events: Events) -> list[dict[str, Any]]:
    """The items that a client makes of added things and deltas, checked against what `done` events hold."""
    items: list[dict[str, Any]] = []
    for payload in events:
        kind = payload["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert payload["output_index"] == len(items) and payload["item"]["status"] == "in_progress"
            items.append(payload["item"])
        elif "output_index" in payload:
            item = items[payload["output_index"]]
            assert payload["output_index"] == len(items) - 1
            assert payload.get("item_id", item["id"]) == item["id"]
            _grow(item, kind, payload)
    return items


def _grow(item: dict[str, Any], kind: str, payload: dict[str, Any]) -> None:
    if kind == "output_item.done":
        assert {**item, "status": payload["item"]["status"]} == payload["item"]
        item["status"] = payload["item"]["status"]
    elif kind.startswith("function_call_arguments"):
        if kind.endswith("delta"):
            item["arguments"] += payload["delta"]
        else:
            assert (item["arguments"], item["name"]) == (payload["arguments"], payload["name"])
    else:
        parts = item["summary" if "summary" in kind else "content"]
        if kind.endswith("part.added"):
            parts.append(payload["part"])
        elif kind.endswith("delta"):
            parts[-1]["text"] += payload["delta"]
        elif kind.endswith("part.done"):
            assert parts[-1] == payload["part"]
        else:
            assert kind.endswith("text.done") and parts[-1]["text"] == payload["text"]


def blank(value: Any) -> Any:
    """Without ids of items and times."""
    text = re.sub(r'"(msg|rs|fc|resp)_[0-9a-f]{32}"', '"ID"', json.dumps(value))
    return json.loads(re.sub(r'"(created|completed)_at": \d+', r'"\1_at": 0', text))


async def respond(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post(ROUTE, json={**BODY, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post(ROUTE, json={**BODY, **body})
    assert answer.status_code == 422 and set(answer.json()) == {"error", "error_type"}
    return answer.json()["error"]


async def test_answer(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.cached_tokens = 16
    more = {"presence_penalty": 0.5, "safety_identifier": "me"}
    body = await respond(client, metadata={"a": "b"}, instructions="Be.", temperature=0.5, top_p=0.9, **more)
    assert re.fullmatch("resp_[0-9a-f]{32}", body["id"])
    assert re.fullmatch("msg_[0-9a-f]{32}", body["output"][0]["id"])
    assert body["completed_at"] >= body["created_at"] > 1_700_000_000
    part = {"type": "output_text", "text": "Hello world", "annotations": [], "logprobs": []}
    assert blank(body) == {
        "id": "ID", "object": "response", "created_at": 0, "completed_at": 0, "status": "completed",
        "background": False, "error": None, "incomplete_details": None, "instructions": "Be.",
        "max_output_tokens": None, "max_tool_calls": None, "metadata": {"a": "b"}, "model": "org/model",
        "output": [
            {"type": "message", "id": "ID", "status": "completed", "role": "assistant", "content": [part]},
        ],
        "frequency_penalty": 0.0, "presence_penalty": 0.5, "prompt_cache_key": None, "safety_identifier": "me",
        "parallel_tool_calls": True, "previous_response_id": None, "reasoning": {"effort": None, "summary": None},
        "service_tier": "default", "store": True, "temperature": 0.5, "text": {"format": {"type": "text"}},
        "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": 0.9, "truncation": "disabled",
        "usage": {
            "input_tokens": 30, "input_tokens_details": {"cached_tokens": 16, "cache_write_tokens": 0},
            "output_tokens": 12, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 42,
        },
        "user": None,
    }  # fmt: skip
    assert engine.requests[0].prompt_ids == ids_of("[system]Be.[user]Hi[assistant]")


async def test_stream_bytes(client: httpx.AsyncClient) -> None:
    answer = await client.post(ROUTE, json={**BODY, "stream": True, "max_output_tokens": 2})
    text = re.sub(r'"response":\{.*\}\}', '"response":RESPONSE}', answer.text)
    text = re.sub("msg_[0-9a-f]{32}", "ID", text)
    where = '"item_id":"ID","output_index":0,"content_index":0'
    part = '"annotations":[],"logprobs":[]}'
    assert text.split("\n\n") == [
        'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":RESPONSE}',
        'event: response.in_progress\ndata: {"type":"response.in_progress","sequence_number":1,"response":RESPONSE}',
        'event: response.output_item.added\ndata: {"type":"response.output_item.added","sequence_number":2,'
        '"output_index":0,"item":{"type":"message","id":"ID","status":"in_progress","content":[],"role":"assistant"}}',
        'event: response.content_part.added\ndata: {"type":"response.content_part.added","sequence_number":3,'
        f'{where},"part":{{"type":"output_text","text":"",{part}}}',
        'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":4,'
        f'{where},"delta":"H","logprobs":[]}}',
        'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":5,'
        f'{where},"delta":"e","logprobs":[]}}',
        'event: response.output_text.done\ndata: {"type":"response.output_text.done","sequence_number":6,'
        f'{where},"text":"He","logprobs":[]}}',
        'event: response.content_part.done\ndata: {"type":"response.content_part.done","sequence_number":7,'
        f'{where},"part":{{"type":"output_text","text":"He",{part}}}',
        'event: response.output_item.done\ndata: {"type":"response.output_item.done","sequence_number":8,'
        '"output_index":0,"item":{"type":"message","id":"ID","status":"incomplete","content":'
        f'[{{"type":"output_text","text":"He",{part}],"role":"assistant"}}}}',
        'event: response.incomplete\ndata: {"type":"response.incomplete","sequence_number":9,"response":RESPONSE}',
        "",
    ]


async def test_every_kind_of_item(client: httpx.AsyncClient, engine: FakeEngine, marked: Callable[..., Any]) -> None:
    engine.reply = '^Hm^\nOk\n{f|("a":1)}\n{g|()}\n'
    for summary in (None, "auto"):
        answer = await client.post(ROUTE, json={**BODY, "stream": True, "reasoning": {"summary": summary}})
        events = events_of(answer)
        text = "reasoning_text" if summary is None else "reasoning_summary_text"
        part = "content_part" if summary is None else "reasoning_summary_part"
        assert [payload["type"].removeprefix("response.") for payload in events] == [
            "created",
            "in_progress",
            "output_item.added",
            f"{part}.added",
            *[f"{text}.delta"] * 2,
            f"{text}.done",
            f"{part}.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            *["output_text.delta"] * 3,
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            *["function_call_arguments.delta"] * 7,
            "function_call_arguments.done",
            "output_item.done",
            "output_item.added",
            *["function_call_arguments.delta"] * 2,
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
        response = events[-1]["response"]
        assert response["output"] == assembled(events)
        assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": 3}
        reasoning, message, first, second = response["output"]
        thought = [{"type": "reasoning_text" if summary is None else "summary_text", "text": "Hm"}]
        assert (reasoning["content"], reasoning["summary"]) == ((thought, []) if summary is None else ([], thought))
        assert message["content"][0]["text"] == "Ok\n"
        assert (first["call_id"], first["name"], first["arguments"]) == ("call_0", "f", '{"a":1}')
        assert (second["call_id"], second["name"], second["arguments"]) == ("call_1", "g", "{}")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    reply=st.lists(st.sampled_from(["^no^", "x", " ", '{f|("a":[1,2])}', "{g|()}", "\n"]), max_size=6).map("".join),
    per_event=st.integers(1, 5),
    max_tokens=st.integers(1, 40),
    summary=st.sampled_from([None, "auto"]),
)
def test_streams_add_up_to_whole_answers(
    marked: Callable[..., Any], reply: str, per_event: int, max_tokens: int, summary: str | None
) -> None:
    async def both() -> tuple[dict[str, Any], Events]:
        engine = FakeEngine(reply=reply)
        engine.per_event = per_event
        async with httpx.AsyncClient(transport=httpx.ASGITransport(build_app(engine)), base_url="http://t") as client:
            body = {**BODY, "max_output_tokens": max_tokens, "reasoning": {"summary": summary}}
            whole = (await client.post(ROUTE, json=body)).json()
            return whole, events_of(await client.post(ROUTE, json={**body, "stream": True}))

    whole, events = asyncio.run(both())
    last = events[-1]
    assert last["type"] == f"response.{whole['status']}"
    assert last["response"]["id"] == events[0]["response"]["id"]
    assert last["response"]["output"] == assembled(events)
    assert blank(last["response"]) == blank(whole)


async def test_a_cut_answer(client: httpx.AsyncClient) -> None:
    body = await respond(client, max_output_tokens=4)
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert body["output"][0]["status"] == "incomplete" and body["completed_at"] is None


async def test_going_on_from_a_response(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Its input and output come first, but not its instructions; also from a stream, and over several."""
    first = await respond(client, instructions="Be.")
    second = await respond(client, input="And?", previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    body = {**BODY, "input": [{"role": "user", "content": "So?"}], "previous_response_id": second["id"]}
    third = events_of(await client.post(ROUTE, json={**body, "stream": True}))[-1]["response"]
    await respond(client, input="Well?", previous_response_id=third["id"])
    prompts = [request.prompt_ids for request in engine.requests]
    said = "[user]Hi[assistant]Hello world[user]And?[assistant]"
    assert prompts[0] == ids_of("[system]Be.[user]Hi[assistant]")
    assert prompts[1] == ids_of(said)
    assert prompts[2] == ids_of(f"{said}Hello world[user]So?[assistant]")
    assert prompts[3] == ids_of(f"{said}Hello world[user]So?[assistant]Hello world[user]Well?[assistant]")


async def test_items_by_reference(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    first = await respond(client)
    items = [{"role": "user", "content": "Hi"}, {"type": "item_reference", "id": first["output"][0]["id"]}]
    await respond(client, input=[*items, {"role": "user", "content": "And?"}])
    assert engine.requests[1].prompt_ids == ids_of("[user]Hi[assistant]Hello world[user]And?[assistant]")
    error = await refused(client, input=[{"type": "item_reference", "id": "msg_0"}])
    assert error["param"] == "input[0]" and "msg_0" in error["message"]


async def test_errors_name_places_in_the_body(client: httpx.AsyncClient) -> None:
    """Whatever comes before the input, and whatever is left out of it."""
    first = await respond(client)
    image = {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}
    items = [{"type": "web_search_call"}, {"role": "user", "content": "x"}, image]
    for previous in (None, first["id"]):
        error = await refused(client, input=items, previous_response_id=previous)
        assert error["param"] == "input[2].content[0]"


async def test_what_is_kept(client: httpx.AsyncClient) -> None:
    body = await respond(client, input=[{"role": "user", "content": str(number)} for number in range(5)])
    path = f"{ROUTE}/{body['id']}"
    assert (await client.get(path)).json() == body
    listed = (await client.get(f"{path}/input_items?limit=2")).json()
    assert [one["content"] for one in listed["data"]] == [[{"type": "input_text", "text": t}] for t in "43"]
    assert listed["has_more"] and listed["object"] == "list"
    assert (listed["first_id"], listed["last_id"]) == tuple(one["id"] for one in listed["data"])
    rest = (await client.get(f"{path}/input_items?after={listed['last_id']}")).json()
    assert [one["content"][0]["text"] for one in rest["data"]] == list("210") and not rest["has_more"]
    ascending = (await client.get(f"{path}/input_items?order=asc")).json()
    assert ascending["data"] == [*listed["data"], *rest["data"]][::-1]
    for query in ("limit=0", "limit=101", "limit=x", "limit=²", "order=up", "after=msg_0"):
        answer = await client.get(f"{path}/input_items?{query}")
        assert answer.status_code == 422 and answer.json()["error"]["param"] == query.split("=")[0]
    assert (await client.get(f"{path}?stream=true")).status_code == 422
    assert (await client.delete(path)).json() == {"id": body["id"], "object": "response", "deleted": True}
    for method, where in (("GET", path), ("DELETE", path), ("GET", f"{path}/input_items")):
        answer = await client.request(method, where)
        assert answer.status_code == 404 and answer.json()["error"]["param"] == "response_id"
    error = await refused(client, previous_response_id=body["id"])
    assert (error["param"], error["code"]) == ("previous_response_id", "previous_response_not_found")


async def test_what_is_not_kept(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = await respond(client, store=False)
    assert body["store"] is False
    assert (await client.get(f"{ROUTE}/{body['id']}")).status_code == 404
    engine.fail_after = 2
    failed = events_of(await client.post(ROUTE, json={**BODY, "stream": True}))[-1]["response"]
    assert (await client.get(f"{ROUTE}/{failed['id']}")).status_code == 404


async def test_a_server_that_keeps_nothing() -> None:
    app = build_app(FakeEngine(), max_stored_responses=0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.post(ROUTE, json=BODY)
        assert answer.json()["store"] is False and "x-tgi-ignored" not in answer.headers
        answer = await client.post(ROUTE, json={**BODY, "store": True})
        assert answer.headers["x-tgi-ignored"] == "store"
        error = await refused(client, previous_response_id=answer.json()["id"])
        assert "--max-stored-responses" in error["message"] and error["param"] == "previous_response_id"


async def test_keys_do_not_see_each_others_responses() -> None:
    app = build_app(FakeEngine(), api_keys=("one", "two"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        one, two = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        id = (await client.post(ROUTE, json=BODY, headers=one)).json()["id"]
        assert (await client.get(f"{ROUTE}/{id}", headers=one)).status_code == 200
        assert (await client.get(f"{ROUTE}/{id}", headers=two)).status_code == 404
        assert (await client.delete(f"{ROUTE}/{id}", headers=two)).status_code == 404
        answer = await client.post(ROUTE, json={**BODY, "previous_response_id": id}, headers=two)
        assert answer.status_code == 422
        assert (await client.get(f"{ROUTE}/{id}")).status_code == 401


LONG = [{"role": "user" if number % 2 == 0 else "assistant", "content": f"{number} " + "x" * 40} for number in range(9)]


async def test_truncation(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """The oldest items go, as few as will do, and what is left begins with the user's."""
    error = await refused(client, input=LONG)
    assert error["code"] == "context_length_exceeded"
    told = {"role": "developer", "content": "Be."}
    body = {**BODY, "input": [told, *LONG], "truncation": "auto", "max_output_tokens": 20}
    answer = await client.post(ROUTE, json=body)
    assert answer.status_code == 200
    assert answer.headers["x-tgi-ignored"] == "input.1, input.2, input.3, input.4, input.5, input.6"
    left = "[system]Be." + "".join(f"[{one['role']}]{one['content']}" for one in LONG[6:]) + "[assistant]"
    assert engine.requests[-1].prompt_ids == ids_of(left)
    answer = await client.post(ROUTE, json={**body, "input": LONG[:3]})
    assert "x-tgi-ignored" not in answer.headers
    error = await refused(client, input=[{"role": "user", "content": "x" * 300}], truncation="auto")
    assert error["code"] == "context_length_exceeded"


async def test_truncation_of_what_was_kept(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    before = await respond(client, input=LONG[:3])
    body = {**BODY, "previous_response_id": before["id"], "input": LONG[4:7], "truncation": "auto"}
    answer = await client.post(ROUTE, json={**body, "max_output_tokens": 20})
    assert answer.headers["x-tgi-ignored"] == "previous_response_id"
    turns = [LONG[2], {"role": "assistant", "content": "Hello world"}, *LONG[4:7]]
    left = "".join(f"[{one['role']}]{one['content']}" for one in turns) + "[assistant]"
    assert engine.requests[-1].prompt_ids == ids_of(left)


async def test_conversations_that_grow_too_large() -> None:
    """What is gone on from is no larger than a body may be."""
    app = build_app(FakeEngine(reply="Yes"), payload_limit=12_000)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        id: str | None = None
        for _ in range(20):
            answer = await client.post(ROUTE, json={**BODY, "previous_response_id": id, "max_output_tokens": 3})
            if answer.status_code != 200:
                break
            id = answer.json()["id"]
        assert id is not None and "--payload-limit" in answer.json()["error"]["message"]
        body = {**BODY, "previous_response_id": id, "max_output_tokens": 3, "truncation": "auto"}
        answer = await client.post(ROUTE, json=body)
        assert answer.headers["x-tgi-ignored"] == "previous_response_id"


async def test_what_has_no_effect_is_named(client: httpx.AsyncClient) -> None:
    tools = [{"type": "web_search"}, {"type": "function", "name": "f", "parameters": {}}]
    items = [{"type": "web_search_call", "id": "ws_1"}, {"role": "user", "content": "Hi"}]
    extra = {"include": ["reasoning.encrypted_content"], "user": "me", "service_tier": "auto"}
    body = {**BODY, "input": items, "tools": tools, "tool_choice": "none", **extra}
    answer = await client.post(ROUTE, json=body)
    assert answer.status_code == 200
    assert set(answer.headers["x-tgi-ignored"].split(", ")) >= {"include", "user", "service_tier", "tools.0", "input.0"}
    assert [tool["name"] for tool in answer.json()["tools"]] == ["f"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"background": True}, "background"),
        ({"text": {"format": {"type": "json_schema", "schema": {"type": "nonsense"}}}}, "text.format"),
        ({"previous_response_id": "resp_0"}, "previous_response_id"),
        ({"input": "x" * 300}, "input"),
        ({"input": "x" * 200, "max_output_tokens": 100}, "max_output_tokens"),
    ],
)
async def test_refused(client: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    for stream in (False, True):
        assert (await refused(client, **body, stream=stream))["param"] == param


async def test_a_stream_that_fails(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    for name, words in (("fail_after", "the device caught fire"), ("crash_after", "Internal server error")):
        setattr(engine, name, 2)
        events = events_of(await client.post(ROUTE, json={**BODY, "stream": True}))
        assert events[0]["type"] == "response.created" and events[-1]["type"] == "response.failed"
        response = events[-1]["response"]
        assert response["id"] == events[0]["response"]["id"] and response["status"] == "failed"
        assert response["error"]["code"] == "server_error" and words in response["error"]["message"]
        assert response["output"][0]["content"][0]["text"] == "He"
        setattr(engine, name, 0)
        answer = await client.post(ROUTE, json={**BODY, "stream": True})
        assert answer.status_code in (424, 500) and words in answer.text
        setattr(engine, name, None)


@pytest.mark.usefixtures("marked")
async def test_log_probabilities(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.reply = "^hm^ Hi{now|()}"
    body = {**BODY, "include": ["message.output_text.logprobs", "reasoning.encrypted_content"], "top_logprobs": 2}
    answer = await client.post(ROUTE, json=body)
    assert answer.headers["x-tgi-ignored"] == "include" and answer.json()["top_logprobs"] == 2
    (text,) = next(item for item in answer.json()["output"] if item["type"] == "message")["content"]
    assert text["text"] == "Hi"
    assert [one["token"] for one in text["logprobs"]][-2:] == ["H", "i"]
    assert {"token", "logprob", "bytes", "top_logprobs"} == set(text["logprobs"][0])
    assert len(text["logprobs"][-1]["top_logprobs"]) == 2

    events = events_of(await client.post(ROUTE, json={**body, "stream": True}))
    deltas = [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"]
    (done,) = [event["logprobs"] for event in events if event["type"] == "response.output_text.done"]
    assert [one for logprobs in deltas for one in logprobs] == done == text["logprobs"]

    plain = await client.post(ROUTE, json={**BODY, "top_logprobs": 2})
    assert (
        plain.headers["x-tgi-ignored"] == "top_logprobs" and plain.json()["output"][-2]["content"][0]["logprobs"] == []
    )
    bad = await client.post(ROUTE, json={**body, "top_logprobs": 99})
    assert bad.status_code == 422 and bad.json()["error"]["param"] == "top_logprobs"
