"""`generate` and `generate_stream` against answers in TGI's exact shapes."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Talk
from fake_server import FakeServer, events, json_answer, stream_answer

from text_generation.errors import IncompleteGenerationError, OverloadedError, UnknownError, ValidationError
from text_generation.types import FinishReason, Grammar, GrammarType

SHAPES = [
    "generate_details_greedy",
    "generate_details_prefill",
    "generate_seeded_all_params_prefill_truncate",
    "generate_seeded_all_params_stop_sequence",
    "generate_seq2seq_prefill",
    "generate_grammar_json",
]


@pytest.mark.parametrize("shape", SHAPES)
def test_answer(server: FakeServer, talk: Talk, shapes: dict[str, Any], shape: str) -> None:
    payload = shapes[shape]
    server.answers["/"] = json_answer([payload])
    response = talk("generate", "Test request")
    dumped = response.model_dump(mode="json", exclude_none=True)
    assert dumped["generated_text"] == payload["generated_text"]
    expected = {key: value for key, value in payload["details"].items() if value is not None}
    without_null = [{k: v for k, v in token.items() if v is not None} for token in expected["prefill"]]
    assert dumped["details"] == {**expected, "prefill": without_null}
    assert isinstance(response.details.finish_reason, FinishReason)


def test_bare_object_and_best_of(server: FakeServer, talk: Talk, shapes: dict[str, Any]) -> None:
    (payload,) = shapes["constructed/generate_best_of_2_top_n_tokens_1"]
    server.answers["/generate"] = json_answer(payload)
    response = talk("generate", "x", best_of=2, do_sample=True, client_options={"base_url": f"{server.url}/generate"})
    assert response.details.best_of_sequences[0].generated_text == "B"
    assert response.details.top_tokens[0][0].id == 5


def test_request_body(server: FakeServer, talk: Talk, shapes: dict[str, Any]) -> None:
    server.answers["/"] = json_answer([shapes["generate_details_greedy"]])
    talk(
        "generate",
        "Hello",
        True,
        7,
        stop_sequences="\n",
        temperature=0,
        grammar=Grammar(type=GrammarType.Json, value={"properties": {"a": {"const": None}}}),
        adapter_id="german",
        extra_parameters={"ignore_eos": True},
    )
    assert server.received[0].body == {
        "inputs": "Hello",
        "stream": False,
        "parameters": {
            "do_sample": True,
            "max_new_tokens": 7,
            "return_full_text": False,
            "stop": ["\n"],
            "temperature": 0,
            "watermark": False,
            "details": True,
            "decoder_input_details": False,
            "grammar": {"type": "json", "value": {"properties": {"a": {"const": None}}}},
            "adapter_id": "german",
            "ignore_eos": True,
        },
    }


def test_unlimited_length_and_stop_list(server: FakeServer, talk: Talk, shapes: dict[str, Any]) -> None:
    server.answers["/"] = json_answer([shapes["generate_details_greedy"]])
    talk("generate", "Hello", max_new_tokens=None, stop_sequences=("a", "b"), grammar={"type": "regex", "value": "a+"})
    parameters = server.received[0].body["parameters"]
    assert "max_new_tokens" not in parameters
    assert parameters["stop"] == ["a", "b"]
    assert parameters["grammar"] == {"type": "regex", "value": "a+"}


def test_stream(server: FakeServer, talk: Talk, shapes: dict[str, Any]) -> None:
    payloads = shapes["constructed/generate_stream_events"]
    server.answers["/"] = stream_answer(b":\n\n" + events(*payloads))
    received = talk("generate_stream", "Hi", top_n_tokens=2)
    assert [event.index for event in received] == [1, 2, 3]
    assert [event.token.text for event in received] == ["Hello", " world", "</s>"]
    assert [token.text for token in received[1].top_tokens] == [" world", " there"]
    assert received[-1].generated_text == "Hello world"
    assert received[-1].details.finish_reason is FinishReason.EndOfSequenceToken
    assert received[-1].details.input_length == 4
    assert received[0].details is None and received[0].generated_text is None
    assert server.received[0].body["stream"] is True


def test_error_inside_a_stream_comes_after_its_tokens(server: FakeServer, talk: Talk, shapes: dict[str, Any]) -> None:
    first = shapes["constructed/generate_stream_events"][0]
    server.answers["/"] = stream_answer(events(first, {"error": "Model is overloaded", "error_type": "overloaded"}))
    with pytest.raises(OverloadedError, match="Model is overloaded"):
        talk("generate_stream", "Hi")


def test_stream_that_ends_early_is_an_error(server: FakeServer, talk: Talk, shapes: dict[str, Any]) -> None:
    server.answers["/"] = stream_answer(events(*shapes["constructed/generate_stream_events"][:2]))
    with pytest.raises(IncompleteGenerationError):
        talk("generate_stream", "Hi")


def test_error_before_a_stream(server: FakeServer, talk: Talk, shapes: dict[str, Any]) -> None:
    server.answers["/"] = json_answer(shapes["constructed/error_body_http"], 422)
    with pytest.raises(ValidationError, match="strictly positive") as caught:
        talk("generate_stream", "Hi")
    assert caught.value.status_code == 422


@pytest.mark.parametrize("payload", [[], {}, "text", None, [{"generated_text": "no details"}]])
def test_answer_of_another_shape(server: FakeServer, talk: Talk, payload: Any) -> None:
    server.answers["/"] = json_answer(payload)
    with pytest.raises(UnknownError, match="no Response"):
        talk("generate", "Hi")


def test_success_that_is_not_json(server: FakeServer, talk: Talk) -> None:
    server.answers["/"] = stream_answer(b"<html>sign in</html>")
    with pytest.raises(UnknownError, match="not JSON"):
        talk("generate", "Hi")
    with pytest.raises(IncompleteGenerationError):
        talk("generate_stream", "Hi")


def test_event_of_another_shape(server: FakeServer, talk: Talk) -> None:
    server.answers["/"] = stream_answer(events({"surprise": 1}))
    with pytest.raises(UnknownError, match="no StreamResponse"):
        talk("generate_stream", "Hi")
    server.answers["/"] = stream_answer(b"data: {broken\n\n")
    with pytest.raises(UnknownError, match="not JSON"):
        talk("generate_stream", "Hi")
