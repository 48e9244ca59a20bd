"""Clients in JavaScript, unmodified: openai-node, @huggingface/inference, the AI SDK."""

from __future__ import annotations

from tests.clients.conftest import KEY, RunScript
from tests.e2e.launched import Launched


def test_openai_node(server: Launched, busy: Launched, run_script: RunScript) -> None:
    answers = run_script("node", "openai_client.cjs", server.url, busy.url, KEY)
    greedy = answers["greedy"]["choices"][0]
    text = greedy["message"]["content"]
    assert [choice["index"] for choice in answers["chat"]["choices"]] == [0, 1]
    assert {len(token["top_logprobs"]) for token in answers["chat"]["choices"][0]["logprobs"]["content"]} == {2}
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in answers["stream"]) == text
    assert answers["helper"]["choices"][0]["message"]["content"] == text
    assert answers["helper"]["choices"][0]["finish_reason"] == greedy["finish_reason"]
    completion = answers["completion"]["choices"][0]
    assert completion["text"] == "Hello, " + "".join(c["choices"][0]["text"] for c in answers["completion_stream"])
    assert completion["logprobs"]["token_logprobs"][0] is None
    assert len(answers["models"]) == 1
    for name, kind, status in (
        ("invalid", "UnprocessableEntityError", 422),
        ("overloaded", "RateLimitError", 429),
        ("wrong_key", "AuthenticationError", 401),
    ):
        assert (answers[name]["type"], answers[name]["status"]) == (kind, status)
    assert answers["invalid"]["param"] == "temperature"
    assert int(answers["overloaded"]["retry_after"]) >= 1


def test_huggingface_inference(server: Launched, run_script: RunScript) -> None:
    answers = run_script("node", "huggingface_client.cjs", server.url)
    assert answers["text"]["generated_text"]
    assert answers["text_stream"][-1]["choices"][0]["finish_reason"] in ("stop", "length")
    text = answers["chat"]["choices"][0]["message"]["content"]
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in answers["chat_stream"]) == text


def test_ai_sdk(server: Launched, run_script: RunScript) -> None:
    answers = run_script("node", "ai_client.cjs", server.url)
    assert "".join(answers["pieces"]) == answers["text"]
    assert answers["finish"] == answers["stream_finish"]
    assert answers["finish"] in ("stop", "length")
    assert answers["usage"]["totalTokens"] == answers["stream_usage"]["totalTokens"] > 0
    assert answers["completion"]
