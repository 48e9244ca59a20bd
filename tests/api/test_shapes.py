"""TGI's example answers, key by key and type by type, against live ones.

Where we differ on purpose (docs/tgi-compatibility.md) or the example was written by a client and not by
TGI (`_about` says so), the adjustment stands beside the request.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from tests.api.fake import INFO, FakeEngine, build_app

SHAPES: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "clients/python/tests/data/tgi-shapes.json").read_text()
)
MESSAGES = [{"role": "user", "content": "Hi"}]
ROOMY = replace(INFO, max_total_tokens=1000, max_input_tokens=999)
"""For the tools that a prompt tells of."""
ELSEWHERE = {"constructed/error_event_openai_stream": "decided otherwise: OpenAI's error object, see test_errors.py"}
GRAMMAR_REGEX = {"type": "regex", "value": "[0-9.]*"}
SCHEMA = {"type": "object", "properties": {"firstName": {"type": "string"}}, "required": ["firstName"]}
FORM = {"type": "json_object", "value": SCHEMA}
PARAMETERS = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
TOOLS = {"tools": [{"type": "function", "function": {"name": "get_current_weather", "parameters": PARAMETERS}}]}
CALL = '{"name": "get_current_weather", "arguments": {"location": "Brooklyn, NY"}}'
"""As a model writes it whose template knows no tools."""

Adjust = Callable[[Any], Any]


def generated(extra: Any) -> Any:
    return {"inputs": "Hello there", "parameters": {"details": True, **extra}}


def as_sent(example: Any) -> Any:
    """Without the two keys that TGI's client adds when they are null; in the array of POST `/`."""
    details = {name: value for name, value in example["details"].items() if value is not None or name == "seed"}
    return [{**example, "details": details}]


def without(*names: str) -> Adjust:
    """Without keys that a client library added, at any depth."""

    def drop(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: drop(below) for name, below in value.items() if name not in names}
        return [drop(one) for one in value] if isinstance(value, list) else value

    return drop


def chat_stream(example: Any) -> Any:
    """As sent: the client's keys dropped, the role only in the first delta."""
    chunks = without(
        "function_call", "refusal", "tool_calls", "service_tier", "completion_tokens_details", "prompt_tokens_details"
    )(example)
    for chunk in chunks[1:]:
        for choice in chunk["choices"]:
            del choice["delta"]["role"]
    return [chunks[0], chunks[1], *chunks[-2:]]


def completion_stream(example: Any) -> Any:
    """As sent: no usage unasked, and null in place of TGI's empty reason."""
    chunks = without("usage")(example)
    for chunk in chunks:
        chunk["choices"][0]["finish_reason"] = chunk["choices"][0]["finish_reason"] or None
    return [chunks[0], chunks[-1]]


def as_tool_call(example: Any) -> Any:
    """As sent: the id is a text of ours, and neither a description nor the reason `stop` stands beside calls."""
    example = without("description")(example)
    example["choices"][0]["finish_reason"] = "tool_calls"
    return example


def tool_stream(example: Any) -> Any:
    """As sent (docs/tools.md): id, type and name come once, pieces of arguments after them, then the reason."""
    first, *_ = example
    first["choices"][0]["delta"].pop("content")
    return first


def with_bytes(example: Any) -> Any:
    """With the bytes that OpenAI's specification has."""
    entries = example["logprobs"]["content"]
    for one in [*entries, *(top for entry in entries for top in entry["top_logprobs"])]:
        one["bytes"] = [79]
    return example


def ends(events: list[Any]) -> list[Any]:
    return [events[0], events[1], *events[-2:]]


@dataclass(frozen=True)
class Case:
    path: str
    body: Any = None
    adjust: Adjust = lambda example: example
    pick: Adjust = lambda answer: answer
    """What of the live answer corresponds to the example."""
    reply: str = "Hello world"


SAMPLED = {"seed": 0, "do_sample": True}
CASES = {
    "generate_details_greedy": Case("/", generated({"max_new_tokens": 10}), as_sent),
    "generate_details_prefill": Case(
        "/", generated({"max_new_tokens": 10, "decoder_input_details": True, **SAMPLED}), as_sent
    ),
    "generate_seeded_all_params_prefill_truncate": Case(
        "/", generated({"truncate": 5, "decoder_input_details": True, "max_new_tokens": 10, **SAMPLED}), as_sent
    ),
    "generate_seeded_all_params_stop_sequence": Case("/", generated({"stop": ["wor"], **SAMPLED}), as_sent),
    "generate_seq2seq_prefill": Case(
        "/", generated({"decoder_input_details": True, "truncate": 1, **SAMPLED}), as_sent
    ),
    "generate_grammar_json": Case("/", generated({"grammar": {"type": "json", "value": SCHEMA}}), as_sent),
    "generate_grammar_regex": Case("/", generated({"grammar": GRAMMAR_REGEX, "max_new_tokens": 10}), as_sent),
    "chat_completion_json_schema_raw": Case("/v1/chat/completions", {"messages": MESSAGES, "response_format": FORM}),
    "chat_stream_json_schema_raw": Case(
        "/v1/chat/completions",
        {"messages": MESSAGES, "response_format": FORM, "stream": True},
        chat_stream,
        ends,
    ),
    "chat_tool_call_nostream": Case(
        "/v1/chat/completions", {"messages": MESSAGES, "tool_choice": "required", **TOOLS}, as_tool_call, reply=CALL
    ),
    "chat_tool_call_stream": Case(
        "/v1/chat/completions",
        {"messages": MESSAGES, "tool_choice": "required", "stream": True, **TOOLS},
        tool_stream,
        lambda events: events[0],
        reply=CALL,
    ),
    "chat_tools_auto_no_tool_fallback_nostream": Case(
        "/v1/chat/completions", {"messages": MESSAGES, **TOOLS}, without("tool_calls")
    ),
    "chat_completion_raw": Case("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 3}),
    "chat_completion_continue_final_assistant_raw": Case(
        "/v1/chat/completions", {"messages": [*MESSAGES, {"role": "assistant", "content": "I"}], "max_tokens": 3}
    ),
    "chat_stream_include_usage_openai_client": Case(
        "/v1/chat/completions",
        {"messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}},
        chat_stream,
        ends,
    ),
    "chat_tool_reply": Case("/v1/chat/completions", {"messages": MESSAGES}, without("tool_calls")),
    "completion_single_prompt_raw": Case("/v1/completions", {"prompt": "x", "max_tokens": 3}),
    "completion_prompt_array_raw": Case("/v1/completions", {"prompt": list("abcd"), "max_tokens": 3}),
    "completion_prompt_array_stream_openai_client": Case(
        "/v1/completions",
        {"prompt": list("abcd"), "stream": True, "max_tokens": 3},
        completion_stream,
        lambda events: [events[0], events[-1]],
    ),
    "constructed/generate_stream_events": Case(
        "/generate_stream",
        {"inputs": "x", "parameters": {"details": True, "top_n_tokens": 2}},
        lambda events: [events[1], {**events[1], **{key: events[2][key] for key in ("generated_text", "details")}}],
        lambda events: [events[1], events[-1]],
    ),
    "constructed/generate_best_of_2_top_n_tokens_1": Case(
        "/", generated({"best_of": 2, "do_sample": True, "top_n_tokens": 1, "max_new_tokens": 1})
    ),
    "constructed/chat_logprobs_choice": Case(
        "/v1/chat/completions",
        {"messages": MESSAGES, "logprobs": True, "top_logprobs": 2},
        with_bytes,
        lambda answer: answer["choices"][0],
    ),
    "constructed/error_body_http": Case("/generate", {"inputs": "x", "parameters": {"temperature": -1}}),
    "constructed/tokenize": Case("/tokenize", {"inputs": "Hello"}),
    "constructed/chat_tokenize": Case("/chat_tokenize", {"messages": MESSAGES}),
    "constructed/info": Case("/info", None, lambda example: example, without("runtime")),
    "constructed/v1_models": Case(
        "/v1/models", None, lambda example: example, without("max_model_len", "capabilities")
    ),
    "constructed/vertex_response": Case("/vertex", {"instances": [{"inputs": "x"}]}),
}


def shape(value: Any) -> Any:
    """Keys and types; of a list the set of its items' shapes."""
    if isinstance(value, dict):
        return {name: shape(below) for name, below in sorted(value.items())}
    if isinstance(value, list):
        return sorted({json.dumps(shape(one)) for one in value})
    return type(value).__name__


def parsed(answer: httpx.Response) -> Any:
    if answer.headers["content-type"] == "text/event-stream":
        lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
        return [json.loads(line) for line in lines if line != "[DONE]"]
    return answer.json()


def live(case: Case, answer: httpx.Response) -> Any:
    """What corresponds to the example, without the details of usage that we have beside TGI's keys."""
    return without("prompt_tokens_details")(case.pick(parsed(answer)))


@pytest.mark.parametrize("name", list(CASES))
async def test_shape(name: str) -> None:
    case = CASES[name]
    example = case.adjust(json.loads(json.dumps(SHAPES[name])))
    app = build_app(FakeEngine(ROOMY, case.reply), pipeline_tag="text-generation")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await (client.get(case.path) if case.body is None else client.post(case.path, json=case.body))
    assert shape(live(case, answer)) == shape(example)


def test_no_example_is_forgotten() -> None:
    assert set(SHAPES) - {"_about"} == set(CASES) | set(ELSEWHERE)
