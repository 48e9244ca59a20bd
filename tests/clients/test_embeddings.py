"""Embeddings by the libraries that ask for them, unmodified: each reads the numbers that plain JSON has."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.clients.conftest import RunScript
from tests.e2e.launched import Launched

TEXTS = ["What is deep learning?", "It is a way of learning.", "x"]


def vectors(server: Launched, given: Any, **fields: Any) -> list[list[float]]:
    """As plain JSON has them."""
    answer = httpx.post(f"{server.url}/v1/embeddings", json={"input": given, **fields}, timeout=60)
    assert answer.status_code == 200, answer.text
    return [one["embedding"] for one in answer.json()["data"]]


def of(answer: dict[str, Any]) -> list[list[float]]:
    assert [one["index"] for one in answer["data"]] == list(range(len(answer["data"])))
    return [one["embedding"] for one in answer["data"]]


@pytest.mark.parametrize("environment", ["openai-2", "openai-3"])
def test_openai(environment: str, server: Launched, run_script: RunScript) -> None:
    answers = run_script(environment, "openai_embeddings.py", server.url)
    wanted = vectors(server, TEXTS)
    assert of(answers["texts"]) == of(answers["floats"]) == answers["async"] == wanted
    assert of(answers["ids"]) == vectors(server, [[5, 6, 7], [8]])
    assert of(answers["short"]) == vectors(server, TEXTS[0], dimensions=8)
    usage = answers["texts"]["usage"]
    assert usage["prompt_tokens"] == usage["total_tokens"] > len(TEXTS)
    assert answers["many"] == 300 and answers["model"]
    assert (answers["refused"]["status"], answers["refused"]["param"]) == (422, "dimensions")


def test_openai_node(server: Launched, run_script: RunScript) -> None:
    answers = run_script("node", "openai_embeddings.cjs", server.url)
    assert of(answers["texts"]) == of(answers["floats"]) == vectors(server, TEXTS)
    assert of(answers["short"]) == vectors(server, TEXTS[0], dimensions=8)


def test_litellm(server: Launched, run_script: RunScript) -> None:
    answers = run_script("litellm", "litellm_embeddings.py", server.url)
    for provider in ("openai", "hosted_vllm"):
        assert answers[provider]["vectors"] == vectors(server, TEXTS)
        assert answers[provider]["usage"]["prompt_tokens"] > len(TEXTS)


def test_langchain(server: Launched, run_script: RunScript) -> None:
    answers = run_script("langchain-openai", "langchain_embeddings.py", server.url)
    wanted = vectors(server, TEXTS)
    assert answers["texts"] == answers["async"] == wanted and answers["query"] == wanted[0]
    assert answers["short"] == vectors(server, TEXTS[0], dimensions=8)[0]
    assert answers["ids"] == vectors(server, [list(text.encode()) for text in TEXTS])
