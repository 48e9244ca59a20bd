"""The published client package of TGI, version 0.7.0, unmodified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.clients.conftest import KEY, RunScript
from tests.e2e.launched import Launched

SHAPES = Path(__file__).parents[2] / "clients/python/tests/data/tgi-shapes.json"


def first_chunk() -> str:
    """A chunk of a chat stream as TGI sent it."""
    return json.dumps(json.loads(SHAPES.read_text())["chat_stream_json_schema_raw"][0])


def test_text_generation(server: Launched, busy: Launched, run_script: RunScript) -> None:
    answers = run_script("text-generation", "text_generation_client.py", server.url, busy.url, KEY, first_chunk())
    check_sync(answers["sync"], server)
    check_async(answers["sync"], answers["async"])
    assert not answers["reads_chunks_of_tgi"]  # its chat streams work with no server


def check_sync(sync: dict[str, Any], server: Launched) -> None:
    raw = server.post(inputs="Hello, ", parameters={"max_new_tokens": 8, "details": True}).json()
    whole = sync["generate"]
    assert whole["generated_text"] == raw["generated_text"]
    assert [token["id"] for token in whole["details"]["tokens"]] == [token["id"] for token in raw["details"]["tokens"]]
    assert whole["details"]["seed"] is None

    full = sync["every_parameter"]
    assert full["generated_text"].startswith("Hello, how are you today?")
    assert len(full["details"]["prefill"]) == 4
    assert full["details"]["prefill"][0]["logprob"] is None
    assert len(full["details"]["best_of_sequences"]) == 1
    assert {len(top) for top in full["details"]["top_tokens"]} <= {1, 2}  # top_p may leave but one
    assert full["details"]["seed"] is not None
    assert sync["seeded"][0] == sync["seeded"][1]

    stream = sync["stream"]
    assert [event["token"] for event in stream] == whole["details"]["tokens"]
    assert stream[-1]["generated_text"] == whole["generated_text"]
    assert stream[-1]["details"]["finish_reason"] == whole["details"]["finish_reason"]
    assert {len(event["top_tokens"]) for event in stream} == {2}

    choice = sync["chat"]["choices"][0]
    assert choice["message"]["role"] == "assistant"
    assert len(choice["logprobs"]["content"]) == sync["chat"]["usage"]["completion_tokens"]
    assert sync["invalid"].startswith("ValidationError: Input validation error: `top_n_tokens` must be >= 0 and <=")
    assert sync["overloaded"] == sync["overloaded_stream"] == "OverloadedError: Model is overloaded"


def check_async(sync: dict[str, Any], asynchronous: dict[str, Any]) -> None:
    assert asynchronous["generate"]["generated_text"] == sync["generate"]["generated_text"]
    assert asynchronous["generate"]["details"]["prefill"][0]["logprob"] is None
    assert [event["token"] for event in asynchronous["stream"]] == [event["token"] for event in sync["stream"]]
    assert asynchronous["chat"]["choices"][0]["message"] == sync["chat"]["choices"][0]["message"]
