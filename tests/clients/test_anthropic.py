"""Anthropic's Python library, unmodified."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.conftest import KEY, RunScript
from tests.e2e.launched import Launched


@pytest.fixture(scope="module")
def answers(server: Launched, guarded: Launched, run_script: RunScript, request: pytest.FixtureRequest) -> Any:
    import httpx

    body = {"inputs": "Hello", "parameters": {"max_new_tokens": 65_000, "ignore_eos": True}}
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.stream("POST", f"{guarded.url}/generate_stream", json=body, headers=headers, timeout=60) as response:
        lines = response.iter_lines()
        assert "token" in next(lines)
        return run_script("anthropic", "anthropic_client.py", server.url, guarded.url, KEY)


def text_of(message: dict[str, Any]) -> str:
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


def same(message: dict[str, Any], other: dict[str, Any]) -> bool:
    """But for ids, and for what the cache held."""

    def content(one: dict[str, Any]) -> list[dict[str, Any]]:
        return [{name: block.get(name) for name in ("type", "text", "name", "input")} for block in one["content"]]

    return content(message) == content(other) and message["stop_reason"] == other["stop_reason"]


def test_messages(answers: dict[str, Any]) -> None:
    plain = answers["plain"]
    assert text_of(plain) and plain["stop_reason"] in ("end_turn", "max_tokens")
    assert same(plain, answers["streamed"]["message"])
    assert all(same(plain, one) for one in answers["async"])
    assert answers["streamed"]["events"][0] == "message_start"
    assert answers["streamed"]["events"][-1] == "message_stop"
    usage = plain["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == answers["counted"]["input_tokens"]
    assert answers["counted_more"]["input_tokens"] > answers["counted"]["input_tokens"]
    assert answers["cut"]["stop_reason"] == "max_tokens" and answers["cut"]["usage"]["output_tokens"] == 2
    stopped = answers["stopped"]
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", answers["stop"])
    assert answers["stop"] not in text_of(stopped)
    assert answers["system"]["type"] == "message" and answers["beta"]["type"] == "text"


def test_tools(answers: dict[str, Any]) -> None:
    tools = answers["tools"]
    for name in ("called", "streamed", "named"):
        (use,) = (block for block in tools[name]["content"] if block["type"] == "tool_use")
        assert tools[name]["stop_reason"] == "tool_use"
        assert use["name"] == "get_weather" and isinstance(use["input"]["location"], str)
    assert same(tools["called"], tools["streamed"])
    assert same(tools["answer"], tools["answer_streamed"])
    assert not any(block["type"] == "tool_use" for block in tools["none"]["content"])


@pytest.mark.parametrize(
    ("name", "kind", "status", "error", "words"),
    [
        ("no_messages", "BadRequestError", 400, "invalid_request_error", "`messages`"),
        ("image", "BadRequestError", 400, "invalid_request_error", "images are not supported"),
        ("too_long", "BadRequestError", 400, "invalid_request_error", "`messages`"),
        ("wrong_key", "AuthenticationError", 401, "authentication_error", "API key"),
        ("overloaded", "OverloadedError", 529, "overloaded_error", "overloaded"),
        ("no_route", "NotFoundError", 404, "not_found_error", "Unknown path"),
    ],
)
def test_errors(answers: dict[str, Any], name: str, kind: str, status: int, error: str, words: str) -> None:
    given = answers["errors"][name]
    assert (given["status"], given["kind"], given["type"]) == (status, error, kind)
    assert words in given["text"] and given["same_id"]
    assert (given["retry_after"] is not None) == (status == 529)
