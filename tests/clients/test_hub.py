"""huggingface_hub's InferenceClient, two generations of it, unmodified."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.conftest import KEY, RunScript
from tests.e2e.launched import Launched

ENVIRONMENTS = ["hub-0.36", "hub-2"]


@pytest.fixture(scope="module")
def run_once() -> dict[str, Any]:
    return {}


@pytest.fixture(params=ENVIRONMENTS)
def answers(
    request: pytest.FixtureRequest, run_once: dict[str, Any], server: Launched, run_script: RunScript
) -> dict[str, Any]:
    name = request.param
    if name not in run_once:
        busy: Launched = request.getfixturevalue("busy")
        run_once[name] = run_script(name, "hub_client.py", server.url, busy.url, KEY)
    return run_once[name]


def test_text_generation(answers: dict[str, Any], server: Launched) -> None:
    sync = answers["sync"]
    parameters = {"max_new_tokens": 8, "details": True}
    raw = server.post(inputs="Hello, ", parameters=parameters).json()
    assert sync["text"] == answers["async"]["text"] == sync["details"]["generated_text"] == raw["generated_text"]
    assert sync["default"] == "Hello, " + raw["generated_text"]
    assert sync["details"]["details"]["tokens"] == raw["details"]["tokens"]

    full = sync["every_parameter"]["details"]
    assert len(full["prefill"]) == 4
    assert len(full["best_of_sequences"]) == 1
    assert {len(top) for top in full["top_tokens"]} <= {1, 2}  # top_p may leave but one


def test_text_generation_stream(answers: dict[str, Any]) -> None:
    sync = answers["sync"]
    tokens = sync["details"]["details"]["tokens"]
    texts = [token["text"] for token in tokens if not token["special"]]
    assert sync["stream"] == answers["async"]["stream"] == texts
    assert [event["token"] for event in sync["stream_details"]] == tokens
    last = sync["stream_details"][-1]
    assert last["generated_text"].endswith(sync["text"])
    assert last["details"]["generated_tokens"] == len(tokens)
    assert last["details"]["input_length"] >= 1


def test_chat(answers: dict[str, Any]) -> None:
    sync = answers["sync"]
    choice = sync["chat"]["choices"][0]
    text = choice["message"]["content"]
    assert len(choice["logprobs"]["content"]) == sync["chat"]["usage"]["completion_tokens"]
    assert sync["chat_stream"][-1]["choices"] == []
    assert sync["chat_stream"][-1]["usage"]["completion_tokens"] == sync["chat"]["usage"]["completion_tokens"]
    for chunks in (sync["chat_stream"][:-1], sync["chat_openai_style"], answers["async"]["chat_stream"]):
        assert "".join(chunk["choices"][0]["delta"]["content"] or "" for chunk in chunks) == text
        assert chunks[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]


def test_errors(answers: dict[str, Any]) -> None:
    sync = answers["sync"]
    for name in ("invalid", "invalid_stream"):
        assert sync[name]["type"] == "ValidationError"
        assert sync[name]["text"] == "Input validation error: `top_k` must be strictly positive"
    for name in ("overloaded", "overloaded_stream"):
        assert (sync[name]["type"], sync[name]["text"]) == ("OverloadedError", "Model is overloaded")
    for name, status, text in (
        ("invalid_chat", 422, "`temperature` must be strictly positive"),
        ("overloaded_chat", 429, "Model is overloaded"),
        ("wrong_key", 401, "Unauthorized"),
    ):
        assert sync[name]["status"] == status
        assert text in sync[name]["text"]
