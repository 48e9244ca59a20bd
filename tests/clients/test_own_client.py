"""Our own client package, installed by itself, in all its modes."""

from __future__ import annotations

from typing import Any

from tests.clients.conftest import KEY, RunScript
from tests.clients.test_text_generation import check_async, check_sync, first_chunk
from tests.e2e.launched import Launched


def test_all_modes(server: Launched, busy: Launched, run_script: RunScript) -> None:
    answers: dict[str, Any] = run_script("own", "own_client.py", server.url, busy.url, KEY)
    assert not answers["torch"]
    raw = server.post(inputs="Hello, ", parameters={"max_new_tokens": 8, "decoder_input_details": True}).json()
    for mode in ("sync", "async"):
        check_generate(answers[mode], raw)
        check_openai(answers[mode])
    text = raw["generated_text"]
    assert answers["sync"]["zero"] == text
    assert set(answers["sync"]["threads"]) == set(answers["async"]["together"]) == {text}
    assert set(answers["sync"]["broken_off"]) == {raw["details"]["tokens"][0]["id"]}
    check_errors(answers["sync"])


def check_generate(mode: dict[str, Any], raw: dict[str, Any]) -> None:
    assert mode["generate"]["generated_text"] == raw["generated_text"]
    assert [one["id"] for one in mode["generate"]["details"]["prefill"]] == [
        one["id"] for one in raw["details"]["prefill"]
    ]
    assert [event["token"] for event in mode["stream"]] == mode["generate"]["details"]["tokens"]
    assert mode["stream"][-1]["generated_text"] == raw["generated_text"]


def check_openai(mode: dict[str, Any]) -> None:
    choice = mode["chat"]["choices"][0]
    chunks = mode["chat_stream"]
    assert (
        "".join(one["delta"]["content"] or "" for c in chunks for one in c["choices"]) == choice["message"]["content"]
    )
    assert chunks[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]
    assert [one["index"] for one in mode["completion"]["choices"]] == [0, 1]
    for index, whole in enumerate(mode["completion"]["choices"]):
        pieces = [one for c in mode["completion_stream"] for one in c["choices"] if one["index"] == index]
        assert "".join(piece["text"] for piece in pieces) == whole["text"]
        assert pieces[-1]["finish_reason"] == whole["finish_reason"]


def check_errors(sync: dict[str, Any]) -> None:
    for name in ("invalid", "invalid_stream"):
        assert sync[name]["type"] == "ValidationError"
        assert "`top_n_tokens` must be >= 0 and <=" in sync[name]["text"]
    for name in ("invalid_chat", "invalid_chat_stream"):
        assert sync[name]["type"] == "ValidationError"
        assert "out of vocabulary" in sync[name]["text"]
    for name in ("overloaded", "overloaded_stream", "overloaded_chat"):
        assert (sync[name]["type"], sync[name]["text"]) == ("OverloadedError", "Model is overloaded")
    assert sync["overloaded"]["retry_after"] >= 1
    assert sync["wrong_key"]["type"] == "AuthenticationError"


def test_in_place_of_the_published_package(server: Launched, busy: Launched, run_script: RunScript) -> None:
    """The script written for version 0.7.0 runs unchanged, and TGI's own chunks can be read."""
    answers = run_script("own", "text_generation_client.py", server.url, busy.url, KEY, first_chunk())
    check_sync(answers["sync"], server)
    check_async(answers["sync"], answers["async"])
    assert answers["reads_chunks_of_tgi"]
