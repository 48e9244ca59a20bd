"""LangChain and litellm over their own client code, unmodified."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.clients.conftest import KEY, RunScript
from tests.e2e.launched import Launched

MESSAGES = [{"role": "user", "content": "Count to 10"}]


@pytest.fixture
def chat_text(server: Launched) -> str:
    """What the server says greedily in eight tokens."""
    body = {"messages": MESSAGES, "max_tokens": 8, "temperature": 0}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    return answer["choices"][0]["message"]["content"]


@pytest.fixture
def completion_text(server: Launched) -> str:
    """How the server goes on greedily for eight tokens."""
    return server.post(inputs="Hello, ", parameters={"max_new_tokens": 8}).json()["generated_text"]


def test_langchain_openai(server: Launched, run_script: RunScript, chat_text: str, completion_text: str) -> None:
    answers = run_script("langchain-openai", "langchain_openai_client.py", server.url)
    chat = answers["chat"]
    assert "".join(answers["stream"]) == chat["text"]
    assert chat["metadata"]["finish_reason"] in ("stop", "length")
    assert chat["usage"]["total_tokens"] == chat["usage"]["input_tokens"] + chat["usage"]["output_tokens"]
    assert answers["batch"] == [chat_text] * 2
    assert answers["async"] == chat_text
    assert {len(token["top_logprobs"]) for token in answers["logprobs"]["content"]} == {2}
    assert chat_text.startswith(answers["stop"])
    assert not {"1", " "} & set(answers["stop"])
    assert answers["completion"].startswith(completion_text)
    assert "".join(answers["completion_stream"]) == answers["completion_batch"][0] == answers["completion"]
    assert isinstance(answers["completion_defaults"], str)


def test_langchain_huggingface(server: Launched, run_script: RunScript, chat_text: str) -> None:
    answers = run_script("langchain-huggingface", "langchain_huggingface_client.py", server.url)
    first, second = answers["sampled"]
    assert first == second == answers["async"]  # seeded
    assert "".join(answers["stream"]).startswith(first)  # TGI's streams show the token that ended the text
    assert isinstance(answers["full"], str)
    assert answers["chat"] == "".join(answers["chat_stream"]) == chat_text


def test_litellm(server: Launched, busy: Launched, run_script: RunScript, chat_text: str, completion_text: str) -> None:
    answers: dict[str, Any] = run_script("litellm", "litellm_client.py", server.url, busy.url, KEY)
    for provider in ("openai", "hosted_vllm", "huggingface"):
        choice = answers[provider]["chat"]["choices"][0]
        assert choice["message"]["content"] == chat_text
        assert "".join(piece or "" for piece in answers[provider]["stream"]) == chat_text
    assert answers["text_completion"].startswith(completion_text)
    assert answers["invalid"]["type"] == "BadRequestError"
    assert "`temperature` must be strictly positive" in answers["invalid"]["text"]
    assert answers["too_long"]["type"] == "ContextWindowExceededError"
    assert (answers["overloaded"]["type"], answers["overloaded"]["status"]) == ("RateLimitError", 429)
    assert (answers["wrong_key"]["type"], answers["wrong_key"]["status"]) == ("AuthenticationError", 401)
