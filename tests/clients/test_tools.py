"""Calls of tools by other people's libraries, which put streams together and give results back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.conftest import HAS_DEMO, RunScript
from tests.e2e.launched import Launched

pytestmark = pytest.mark.skipif(not HAS_DEMO, reason="the demo model is not there, which calls tools")


def arguments_of(choice: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the only call."""
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    return json.loads(call["function"]["arguments"])


@pytest.mark.parametrize("environment", ["openai-2", "openai-3"])
def test_openai(server: Launched, run_script: RunScript, environment: str) -> None:
    answers = run_script(environment, "openai_tools.py", server.url)
    for kind in ("auto", "required", "streamed"):
        assert set(arguments_of(answers[kind]["choices"][0])) == {"location"}
    assert set(answers["parsed"]) == {"location"}
    assert "tool_calls.function.arguments.done" in answers["kinds"]
    message = answers["answer"]["choices"][0]["message"]
    assert message["content"] or message["tool_calls"]


def test_openai_node(server: Launched, run_script: RunScript) -> None:
    answers = run_script("node", "openai_tools.cjs", server.url)
    assert set(answers["inputs"][0]) == {"location"}
    assert answers["roles"][:3] == ["user", "assistant", "tool"]
    assert set(arguments_of(answers["forced"])) == {"location"}


def test_langchain(server: Launched, run_script: RunScript) -> None:
    answers = run_script("langchain-openai", "langchain_tools.py", server.url)
    for (call,) in answers["calls"]:
        assert (call["name"], set(call["args"])) == ("get_weather", {"location"})
    assert answers["finish"] == "tool_calls"
    assert isinstance(answers["answer"], str)


@pytest.mark.parametrize("environment", ["hub-0.36", "hub-2"])
def test_hub(server: Launched, run_script: RunScript, environment: str) -> None:
    answers = run_script(environment, "hub_tools.py", server.url)
    for ((name, arguments),) in answers["calls"]:
        assert (name, set(json.loads(arguments))) == ("get_weather", {"location"})
    assert (answers["name"], answers["streamed"]) == tuple(answers["calls"][0][0])
    assert answers["finish"] == ["tool_calls", "tool_calls"]


def test_litellm(server: Launched, run_script: RunScript) -> None:
    answers = run_script("litellm", "litellm_tools.py", server.url)
    for provider in ("openai", "hosted_vllm"):
        for finish, ((name, arguments),) in answers[provider]:
            assert (finish, name, set(json.loads(arguments))) == ("tool_calls", "get_weather", {"location"})


def test_ai_sdk(server: Launched, run_script: RunScript) -> None:
    answers = run_script("node", "ai_tools.cjs", server.url)
    assert answers["finish"] == "tool-calls"
    assert [(name, set(input)) for name, input in answers["calls"]] == [("get_weather", {"location"})]
    assert {"tool-call", "tool-result", "tool-input-delta", "finish"} <= set(answers["kinds"])
    assert answers["steps"][0][:2] == ["tool-calls", 1]
    assert len(answers["inputs"]) >= 2


def test_own_client(server: Launched, run_script: RunScript) -> None:
    answers = run_script("own", "own_tools.py", server.url)
    for (call,) in answers["calls"]:
        assert (call["function"]["name"], set(json.loads(call["function"]["arguments"]))) == (
            "get_weather",
            {"location"},
        )
    assert answers["streamed"] == answers["calls"][0][0]["function"]["arguments"]
    assert answers["finish"] == ["tool_calls", "tool_calls"]
