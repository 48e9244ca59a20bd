"""OpenAI's Python library, two generations of it, unmodified."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.conftest import KEY, RunScript
from tests.e2e.launched import Launched

ENVIRONMENTS = ["openai-2", "openai-3"]


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
        run_once[name] = run_script(name, "openai_client.py", server.url, busy.url, KEY)
    return run_once[name]


def text_of(chunks: list[dict[str, Any]], index: int = 0) -> str:
    """What a chat stream said in one choice."""
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"]["content"] or "" for choice in choices)


def test_chat(answers: dict[str, Any]) -> None:
    chat = answers["chat"]
    plain = chat["plain"]
    text = plain["choices"][0]["message"]["content"]
    assert plain["id"].startswith("chatcmpl-")
    assert chat["logprobs"]["choices"][0]["message"]["content"] == text
    for token in chat["logprobs"]["choices"][0]["logprobs"]["content"]:
        assert len(token["top_logprobs"]) == 3
        assert token["logprob"] == token["top_logprobs"][0]["logprob"]  # greedy takes the best
    texts = [choice["message"]["content"] for choice in chat["samples"]["choices"]]
    assert [choice["index"] for choice in chat["samples"]["choices"]] == [0, 1, 2]
    assert texts == [choice["message"]["content"] for choice in chat["samples_again"]["choices"]]
    assert chat["openai_defaults"]["choices"][0]["finish_reason"] in ("stop", "length")
    biased = chat["biased"]["choices"][0]["logprobs"]["content"]
    assert len({token["token"] for token in biased}) == 1
    assert "x-tgi-ignored" not in chat["raw_headers"]
    assert chat["raw_headers"]["x-prompt-tokens"] == str(plain["usage"]["prompt_tokens"])


def test_chat_stream(answers: dict[str, Any]) -> None:
    chat = answers["chat"]
    plain = chat["plain"]["choices"][0]
    *chunks, last = chat["stream"]
    assert text_of(chunks) == text_of(answers["async"]["stream"]) == plain["message"]["content"]
    assert [chunk["choices"][0]["delta"]["role"] for chunk in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0]["finish_reason"] == plain["finish_reason"]
    assert last["choices"] == []
    assert last["usage"] == chat["plain"]["usage"]
    assert {chunk["id"] for chunk in chunks} == {last["id"]}
    for index in (0, 1):
        assert text_of(chat["stream_samples"], index) == chat["samples"]["choices"][index]["message"]["content"]
    helper = chat["helper"]["choices"][0]
    assert helper["finish_reason"] == "stop"
    assert plain["message"]["content"].startswith(helper["message"]["content"])


def test_completions(answers: dict[str, Any]) -> None:
    completions = answers["completions"]
    text = completions["plain"]["choices"][0]["text"]
    for stopped in completions["stopped"]:
        assert stopped["choices"][0]["finish_reason"] == "stop"
        assert text.startswith(stopped["choices"][0]["text"])
        assert completions["stop"] not in stopped["choices"][0]["text"]
    assert completions["prompts"]["choices"][0]["text"] == text
    several = completions["several_ids"]["choices"]
    assert several[0]["text"] == completions["ids"]["choices"][0]["text"]
    assert [choice["index"] for choice in several] == [0, 1]
    assert [choice["index"] for choice in completions["samples"]["choices"]] == [0, 1]
    *chunks, last = completions["stream"]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == text
    assert (last["choices"], last["usage"]) == ([], completions["plain"]["usage"])
    for index, choice in enumerate(completions["prompts"]["choices"]):
        pieces = [one for chunk in completions["stream_prompts"] for one in chunk["choices"] if one["index"] == index]
        assert "".join(piece["text"] for piece in pieces) == choice["text"]
        assert all(len(piece["logprobs"]["tokens"]) == 1 for piece in pieces)


def test_echo_and_logprobs(answers: dict[str, Any]) -> None:
    completions = answers["completions"]
    choice = completions["echo"]["choices"][0]
    assert choice["text"] == "Hello, " + completions["plain"]["choices"][0]["text"]
    logprobs = choice["logprobs"]
    usage = completions["echo"]["usage"]
    assert {len(logprobs[name]) for name in logprobs} == {usage["prompt_tokens"] + usage["completion_tokens"]}
    assert logprobs["token_logprobs"][0] is None
    score = completions["score"]["choices"][0]["logprobs"]
    assert len(score["tokens"]) == 3
    assert completions["score"]["usage"]["completion_tokens"] == 0
    assert all(logprob < 0 for logprob in score["token_logprobs"][1:])


@pytest.mark.parametrize(
    ("name", "kind", "status", "param", "words"),
    [
        ("temperature", "UnprocessableEntityError", 422, "temperature", "`temperature` must be strictly positive"),
        ("wrong_type", "UnprocessableEntityError", 422, "temperature", "should be a valid number"),
        ("no_messages", "UnprocessableEntityError", 422, "messages", "`messages` cannot be empty"),
        ("long_prompt", "UnprocessableEntityError", 422, "max_tokens", "must be <= 2048"),
        ("unknown_ids", "UnprocessableEntityError", 422, "prompt", "out of vocabulary"),
        ("tools", "UnprocessableEntityError", 422, "tools.0", "a name must be"),
        ("malformed", "BadRequestError", 400, None, "Failed to parse the request body as JSON"),
        ("no_route", "NotFoundError", 404, None, "Unknown path"),
        ("wrong_key", "AuthenticationError", 401, None, "API key"),
        ("overloaded", "RateLimitError", 429, None, "Model is overloaded"),
        ("overloaded_stream", "RateLimitError", 429, None, "Model is overloaded"),
    ],
)
def test_errors(answers: dict[str, Any], name: str, kind: str, status: int, param: str | None, words: str) -> None:
    error = answers["errors"][name]
    assert (error["type"], error["status"], error["param"]) == (kind, status, param)
    assert words in error["text"]
    assert (error["retry_after"] is not None) == (status == 429)
    assert error["code"] == ("context_length_exceeded" if name == "long_prompt" else None)


def test_async(answers: dict[str, Any]) -> None:
    text = answers["chat"]["plain"]["choices"][0]["message"]["content"]
    assert {one["choices"][0]["message"]["content"] for one in answers["async"]["together"]} == {text}
    assert len(answers["async"]["models"]) == 1
