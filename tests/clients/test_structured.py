"""Structured answers and tools by the libraries that agents are written with, unmodified.

Each reads an answer of the right type; what it says may be silly. `$TGI_TEST_MODEL` names the model that is asked, the
demo model unless told otherwise.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest

from tests.clients.conftest import RunScript
from tests.e2e.launched import Launched

CITIES = ("Paris", "London")


def is_weather(arguments: Any) -> bool:
    """The call that was asked for, or the answer of that form."""
    found = json.loads(arguments) if isinstance(arguments, str) else arguments
    return set(found) >= {"city"} and found["city"] in CITIES


def check_all(answers: dict[str, Any], loose: set[str]) -> None:
    """loose: those that ask for any JSON, of which only a model that understands the question makes the right one."""
    understands = bool(os.environ.get("TGI_TEST_MODEL"))
    wrong = {name: answer for name, answer in answers.items() if not is_weather(answer)}
    assert {name: answer for name, answer in wrong.items() if understands or name not in loose} == {}


@pytest.mark.parametrize("environment", ["openai-2", "openai-3"])
def test_openai(environment: str, model_server: Launched, run_script: RunScript) -> None:
    answers = run_script(environment, "openai_structured.py", model_server.url)
    for event in answers["parsed"].values():  # pydantic has checked them
        assert event["day"] in ("Friday", "Saturday") and len(event["people"]) <= 2
    choice = answers["tools"]["call"]["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    for call in choice["message"]["tool_calls"]:
        assert call["function"]["name"] == "get_weather" and call["id"]
        assert json.loads(call["function"]["arguments"])["location"] in CITIES
    streamed = answers["tools"]["stream"]["choices"][0]["message"]["tool_calls"][0]["function"]
    assert streamed["arguments"] == answers["tools"]["pieces"]
    assert json.loads(streamed["arguments"])["location"] in CITIES
    assert answers["tools"]["after"]["choices"][0]["message"]["content"]
    whole = answers["json_object"]
    assert whole["finish_reason"] == "length" or isinstance(json.loads(whole["message"]["content"]), dict)
    assert answers["choice"] in ("yes", "no") and answers["regex"] in ("yes!", "no!")


@pytest.mark.parametrize("environment", ["hub-0.36", "hub-2"])
def test_huggingface_hub(environment: str, model_server: Launched, run_script: RunScript) -> None:
    answers = run_script(environment, "hub_structured.py", model_server.url)
    for name in ("json_schema", "json", "grammar"):
        assert is_weather(answers[name]) and 0 <= json.loads(answers[name])["degrees"] <= 40
    for name in ("call", "stream"):
        assert answers[name]["name"] == "get_weather" and is_weather(answers[name]["arguments"])
    assert re.fullmatch("[0-9]{2} degrees", answers["regex"])


def test_langchain(model_server: Launched, run_script: RunScript) -> None:
    answers = run_script("langchain-openai", "langchain_structured.py", model_server.url)
    check_all({method: answers[method] for method in ("json_schema", "function_calling", "json_mode")}, {"json_mode"})
    for name in ("tools", "streamed"):
        assert [call["name"] for call in answers[name]][:1] == ["get_weather"]
        assert is_weather(answers[name][0]["args"])
    assert isinstance(answers["after"], str)


def test_instructor(model_server: Launched, run_script: RunScript) -> None:
    answers = run_script("instructor", "instructor_client.py", model_server.url)
    assert len(answers) == 5
    check_all(answers, {"JSON"})


def test_pydantic_ai(model_server: Launched, run_script: RunScript) -> None:
    answers = run_script("pydantic-ai", "pydantic_ai_client.py", model_server.url)
    check_all(answers, {"PromptedOutput"})


def test_dspy(model_server: Launched, run_script: RunScript) -> None:
    answers = run_script("dspy", "dspy_client.py", model_server.url)
    assert {*answers.values()} <= {"good", "bad"}, answers


def test_llama_index(model_server: Launched, run_script: RunScript) -> None:
    answers = run_script("llama-index", "llama_index_client.py", model_server.url)
    assert answers["chat"] == answers["stream"]
    assert is_weather(answers["structured"])
    assert answers["call"]["name"] == "get_weather" and is_weather(answers["call"]["arguments"])


def test_ai_sdk_and_openai_node(model_server: Launched, run_script: RunScript) -> None:
    answers = run_script("node", "ai_structured.cjs", model_server.url)
    for name in ("object", "objects", "node_format"):
        assert is_weather(answers[name])
    for name in ("calls", "stream_calls"):
        assert answers[name][0]["toolName"] == "get_weather" and is_weather(answers[name][0]["input"])
    assert answers["finish"] == "tool-calls" and "tool-call" in answers["streamed"]
    for name in ("node_call", "node_stream"):
        assert answers[name]["finish_reason"] == "tool_calls"
        assert is_weather(answers[name]["message"]["tool_calls"][0]["function"]["arguments"])
