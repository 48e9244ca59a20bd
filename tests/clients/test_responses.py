"""OpenAI's Python library on `/v1/responses`, two generations of it, unmodified."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.conftest import KEY, RunScript
from tests.e2e.launched import Launched


@pytest.fixture(scope="module")
def run_once() -> dict[str, Any]:
    return {}


@pytest.fixture(params=["openai-2", "openai-3"])
def answers(
    request: pytest.FixtureRequest, run_once: dict[str, Any], server: Launched, run_script: RunScript
) -> dict[str, Any]:
    name = request.param
    if name not in run_once:
        busy: Launched = request.getfixturevalue("busy")
        run_once[name] = run_script(name, "responses_client.py", server.url, busy.url, KEY)
    return run_once[name]


def text_of(response: dict[str, Any]) -> str:
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part["text"] for part in parts)


def test_responses(answers: dict[str, Any]) -> None:
    plain, streamed = answers["plain"], answers["streamed"]
    assert text_of(plain) == text_of(streamed["response"]) != ""
    assert plain["usage"]["total_tokens"] == plain["usage"]["input_tokens"] + plain["usage"]["output_tokens"]
    assert streamed["numbers"] == list(range(len(streamed["numbers"])))
    events = streamed["events"]
    assert events[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert events[-4:-1] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert events[-1] == f"response.{plain['status']}"
    assert answers["async"]["events"] == events
    assert {text_of(one) for one in answers["async"]["together"]} == {text_of(plain)}
    assert answers["cut"]["status"] == "incomplete"
    assert answers["cut"]["incomplete_details"]["reason"] == "max_output_tokens"


def test_kept(answers: dict[str, Any]) -> None:
    kept = answers["kept"]
    assert text_of(kept["second"]) == text_of(kept["stateless"])
    assert kept["second"]["usage"]["input_tokens"] == kept["stateless"]["usage"]["input_tokens"]
    assert kept["retrieved"] and len(kept["input_items"]) == 1
    assert kept["gone"]["status"] == 404
    assert kept["gone_before"]["code"] == "previous_response_not_found"


def test_tools(answers: dict[str, Any]) -> None:
    tools = answers["tools"]
    calls = []
    for response in (tools["called"], tools["streamed"]["response"], tools["named"]):
        (call,) = (item for item in response["output"] if item["type"] == "function_call")
        assert call["name"] == "get_weather" and isinstance(json.loads(call["arguments"])["location"], str)
        calls.append(call["arguments"])
    assert calls[0] == calls[1]
    assert "response.function_call_arguments.done" in tools["streamed"]["events"]
    assert [tool["name"] for tool in tools["called"]["tools"]] == ["get_weather"]
    answers_of = [
        [(item["type"], item.get("arguments"), text_of({"output": [item]})) for item in tools[name]["output"]]
        for name in ("answer", "answer_kept")
    ]
    assert answers_of[0] == answers_of[1] != []
    assert not any(item["type"] == "function_call" for item in tools["none"]["output"])


def test_parsed(answers: dict[str, Any]) -> None:
    parsed = answers["parsed"]
    for value in (parsed["whole"], parsed["streamed"], json.loads(parsed["tool"])):
        assert isinstance(value["city"], str) and isinstance(value["rains"], bool)
    assert isinstance(json.loads(parsed["object"]), dict)


def test_errors(answers: dict[str, Any]) -> None:
    errors = answers["errors"]
    assert (errors["image"]["status"], errors["image"]["param"]) == (422, "input[0].content[0]")
    assert (errors["too_long"]["status"], errors["too_long"]["code"]) == (422, "context_length_exceeded")
    assert errors["overloaded"]["status"] == 429
