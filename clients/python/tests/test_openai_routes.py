"""`chat` and `completion`, whole and streamed, in TGI's shapes, this project's and OpenAI's."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Talk
from fake_server import FakeServer, events, json_answer, stream_answer

from text_generation.errors import GenerationError, IncompleteGenerationError, OverloadedError, ValidationError
from text_generation.types import Message, Tool

CHAT = "/v1/chat/completions"
COMPLETION = "/v1/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": {"default": None}}}}}


def chunk(**choice: Any) -> dict[str, Any]:
    """A chunk as this project's server and OpenAI's send it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "logprobs": None, "finish_reason": None, **choice}],
    }


@pytest.mark.parametrize("shape", ["chat_completion_raw", "chat_completion_json_schema_raw", "chat_tool_reply"])
def test_chat(server: FakeServer, talk: Talk, shapes: dict[str, Any], shape: str) -> None:
    payload = shapes[shape]
    server.answers[CHAT] = json_answer(payload)
    answer = talk("chat", [Message(role="user", content="Hi")], max_tokens=3)
    assert answer.choices[0].message.content == payload["choices"][0]["message"]["content"]
    assert answer.choices[0].finish_reason == payload["choices"][0]["finish_reason"]
    assert answer.usage["completion_tokens"] == payload["usage"]["completion_tokens"]
    assert (answer.id, answer.model, answer.system_fingerprint) == ("", payload["model"], payload["system_fingerprint"])
    assert server.received[0].body == {
        "model": "tgi",
        "messages": MESSAGES,
        "max_tokens": 3,
        "stream": False,
    }


def test_chat_request_body(server: FakeServer, talk: Talk, shapes: dict[str, Any]) -> None:
    server.answers[CHAT] = json_answer(shapes["chat_completion_raw"])
    arguments: dict[str, Any] = {
        "logit_bias": {50256: -100},
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "stop": "\n",
        "model": "german",
        "max_completion_tokens": 5,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"const": None}}},
        "n": 2,
        "temperature": 0,
        "top_p": 1.0,
        "extra_body": {"user": "me"},
    }
    parts = [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "data:x"}}]
    result = {"role": "tool", "content": "42", "tool_call_id": "call_1"}
    talk("chat", [{"role": "user", "content": parts}, result], tools=[Tool(**TOOL)], **arguments)
    body = server.received[0].body
    assert body.pop("messages") == [{"role": "user", "content": parts}, result]
    assert body.pop("tools") == [TOOL]
    assert body == {
        **{key: value for key, value in arguments.items() if key != "extra_body"},
        "logit_bias": {"50256": -100},
        "user": "me",
        "stream": False,
    }


def test_chat_tool_call(server: FakeServer, talk: Talk, shapes: dict[str, Any]) -> None:
    server.answers[CHAT] = json_answer(shapes["chat_tool_call_nostream"])
    message = talk("chat", MESSAGES, tools=[TOOL]).choices[0].message
    assert message.content is None
    assert message.tool_calls[0]["function"]["name"] == "get_current_weather"


def test_chat_logprobs(server: FakeServer, talk: Talk, shapes: dict[str, Any]) -> None:
    choice = shapes["constructed/chat_logprobs_choice"]
    server.answers[CHAT] = json_answer({**shapes["chat_completion_raw"], "choices": [choice]})
    answer = talk("chat", MESSAGES, logprobs=True, top_logprobs=2)
    assert answer.choices[0].logprobs["content"][0]["top_logprobs"][1]["logprob"] == -4.5


def test_answer_without_the_optional_keys(server: FakeServer, talk: Talk) -> None:
    bare = {"id": None, "choices": [{"message": {"role": "assistant", "content": None}, "finish_reason": None}]}
    server.answers[CHAT] = json_answer({**bare, "usage": None, "service_tier": "x", "created": None})
    answer = talk("chat", MESSAGES)
    assert (answer.id, answer.created, answer.usage, answer.service_tier) == ("", 0, None, "x")


def test_chat_stream_of_tgi(server: FakeServer, talk: Talk, shapes: dict[str, Any]) -> None:
    server.answers[CHAT] = stream_answer(events(*shapes["chat_stream_json_schema_raw"], done=True))
    chunks = talk("chat", MESSAGES, stream=True)
    assert "".join(c.choices[0].delta.content for c in chunks) == '{"f}'
    assert [c.choices[0].finish_reason for c in chunks] == [None, None, None, None, "stop"]
    assert all(c.usage is None for c in chunks)
    assert server.received[0].body["stream"] is True


def test_chat_stream_with_usage(server: FakeServer, talk: Talk, shapes: dict[str, Any]) -> None:
    server.answers[CHAT] = stream_answer(events(*shapes["chat_stream_include_usage_openai_client"], done=True))
    chunks = talk("chat", MESSAGES, stream=True, stream_options={"include_usage": True})
    assert chunks[-1].choices == [] and chunks[-1].usage["total_tokens"] == 42
    assert server.received[0].body["stream_options"] == {"include_usage": True}


def test_chat_stream_of_openai(server: FakeServer, talk: Talk) -> None:
    # Role in the first delta only, no system_fingerprint, an empty last delta.
    deltas = [{"role": "assistant", "content": ""}, {"content": "Hé"}, {}]
    payloads = [chunk(delta=delta) for delta in deltas]
    payloads[-1]["choices"][0]["finish_reason"] = "stop"
    server.answers[CHAT] = stream_answer(events(*payloads, done=True))
    chunks = talk("chat", MESSAGES, stream=True)
    assert [c.choices[0].delta.role for c in chunks] == ["assistant", None, None]
    assert [c.choices[0].delta.content for c in chunks] == ["", "Hé", None]


def test_chat_stream_of_tool_call(server: FakeServer, talk: Talk, shapes: dict[str, Any]) -> None:
    server.answers[CHAT] = stream_answer(events(*shapes["chat_tool_call_stream"], done=True))
    chunks = talk("chat", MESSAGES, tools=[TOOL], stream=True)
    calls = [call for c in chunks for call in c.choices[0].delta.tool_calls]
    assert calls[0].function.name == "get_current_weather"
    assert "".join(call.function.arguments for call in calls).startswith('{ "location')
    assert chunks[-1].choices[0].finish_reason is None  # TGI: [DONE] alone ends such a stream


def test_tool_call_pieces_of_openai_and_of_old_servers(server: FakeServer, talk: Talk) -> None:
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": None}}
    rest = {"index": 0, "function": {"arguments": "{}"}}
    single = {"index": 0, "id": "", "type": "function", "function": {"name": "f", "arguments": ""}}
    payloads = [chunk(delta={"tool_calls": [first]}), chunk(delta={"tool_calls": [rest]})]
    server.answers[CHAT] = stream_answer(events(*payloads, chunk(delta={"tool_calls": single}), done=True))
    pieces = [c.choices[0].delta.tool_calls[0] for c in talk("chat", MESSAGES, stream=True)]
    assert [(p.id, p.function.name, p.function.arguments) for p in pieces] == [
        ("call_1", "f", ""),
        (None, None, "{}"),
        ("", "f", ""),
    ]


@pytest.mark.parametrize("shape", ["completion_single_prompt_raw", "completion_prompt_array_raw"])
def test_completion(server: FakeServer, talk: Talk, shapes: dict[str, Any], shape: str) -> None:
    server.answers[COMPLETION] = json_answer(shapes[shape])
    answer = talk("completion", ["a", "b"], max_tokens=10, stop=["x"], echo=True, logprobs=1)
    assert [c.text for c in answer.choices] == [c["text"] for c in shapes[shape]["choices"]]
    assert answer.usage["prompt_tokens"] == shapes[shape]["usage"]["prompt_tokens"]
    assert server.received[0].body == {
        "model": "tgi",
        "prompt": ["a", "b"],
        "max_tokens": 10,
        "stop": ["x"],
        "echo": True,
        "logprobs": 1,
        "stream": False,
    }


@pytest.mark.parametrize("prompt", ["text", ["a"], [1, 2], [[1, 2], [3]]])
def test_every_form_of_prompt_goes_through(server: FakeServer, talk: Talk, shapes: dict[str, Any], prompt: Any) -> None:
    server.answers[COMPLETION] = json_answer(shapes["completion_single_prompt_raw"])
    talk("completion", prompt)
    assert server.received[0].body["prompt"] == prompt


def test_completion_stream(server: FakeServer, talk: Talk, shapes: dict[str, Any]) -> None:
    payloads = shapes["completion_prompt_array_stream_openai_client"]
    server.answers[COMPLETION] = stream_answer(events(*payloads, done=True))
    chunks = talk("completion", ["a", "b", "c", "d"], stream=True)
    assert [(c.choices[0].index, c.choices[0].finish_reason) for c in chunks] == [
        (0, ""),
        (1, ""),
        (2, ""),
        (2, "length"),
        (3, "length"),
    ]
    assert chunks[-1].usage["total_tokens"] == 13


@pytest.mark.parametrize(("method", "path"), [("chat", CHAT), ("completion", COMPLETION)])
@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"error": {"message": "Input validation error: x", "http_status_code": 422}}, ValidationError),
        ({"error": {"message": "Model is overloaded", "http_status_code": 422}}, OverloadedError),
        (
            {
                "error": {"message": "boom", "type": "server_error", "param": None, "code": None},
                "error_type": "generation",
            },
            GenerationError,
        ),
    ],
)
def test_error_event(
    server: FakeServer, talk: Talk, method: str, path: str, payload: dict[str, Any], expected: type[Exception]
) -> None:
    server.answers[path] = stream_answer(events(payload, done=True))
    with pytest.raises(expected):
        talk(method, MESSAGES if method == "chat" else "Hi", stream=True)


def test_stream_cut_before_its_end(server: FakeServer, talk: Talk) -> None:
    server.answers[CHAT] = stream_answer(events(chunk(delta={"content": "a"})))
    with pytest.raises(IncompleteGenerationError):
        talk("chat", MESSAGES, stream=True)


def test_stream_without_done_after_a_finish_reason_is_whole(server: FakeServer, talk: Talk) -> None:
    server.answers[CHAT] = stream_answer(events(chunk(delta={"content": "a"}, finish_reason="stop")))
    assert len(talk("chat", MESSAGES, stream=True)) == 1


def test_nothing_after_done_counts(server: FakeServer, talk: Talk) -> None:
    body = events(chunk(delta={"content": "a"}), done=True) + b"data: garbage\n\n"
    server.answers[CHAT] = stream_answer(body)
    assert len(talk("chat", MESSAGES, stream=True)) == 1
