"""`x-tgi-ignored`: what a request says without effect, by its path in the body."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydantic import Field

from tests.api.fake import FakeEngine
from tgi.api.openai.chat_types import ChatRequest
from tgi.api.server.body import parse
from tgi.api.wire.fields import RequestModel

CHAT = "/v1/chat/completions"
CACHED = {"cache_control": {"type": "ephemeral"}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


async def ignored(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> str:
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.headers.get("x-tgi-ignored", "")


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ({"role": "user", "content": "Hi", **CACHED}, "messages.1.cache_control"),
        ({"role": "user", "content": [{"type": "text", "text": "Hi", **CACHED}]}, "messages.1.content.0.cache_control"),
        ({"role": "assistant", "content": "", "refusal": "no", "audio": {}}, "messages.1.audio, messages.1.refusal"),
        ({"role": "user", "content": "Hi", "cache_control": None}, ""),
        (
            {"role": "assistant", "content": "", "tool_calls": [CALL, {**CALL, "index": 0}]},
            "messages.1.tool_calls.1.index",
        ),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "function": {**CALL["function"], "strict": True}}]},  # type: ignore[dict-item]
            "messages.1.tool_calls.0.function.strict",
        ),
    ],
)
async def test_nested_fields_of_messages(client: httpx.AsyncClient, message: dict[str, Any], names: str) -> None:
    messages = [{"role": "user", "content": "Hi"}, message]
    for path in (CHAT, "/invocations"):
        assert await ignored(client, path, {"messages": messages, "max_tokens": 2}) == names
    assert await ignored(client, "/chat_tokenize", {"messages": messages, "model": "tgi"}) == names
    vertex = {"instances": [{"inputs": "x", "parameters": {"max_new_tokens": 2}}, {"messages": messages}]}
    expected = ", ".join(f"instances.1.{name}" for name in names.split(", ") if name)
    assert await ignored(client, "/vertex", vertex) == expected


async def test_nested_fields_of_other_objects(client: httpx.AsyncClient) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}}
    body = {"messages": [{"role": "user", "content": "Hi"}], **options}
    assert await ignored(client, CHAT, body) == "stream_options.include_obfuscation"
    body = {"inputs": "x", "parameters": {"max_tokens": 3}}
    assert await ignored(client, "/generate", body) == "parameters.max_tokens (did you mean max_new_tokens?)"
    infer = {
        "id": "1",
        "inputs": [
            {"name": "a", "shape": [1], "datatype": "BYTES", "data": [65], "parameters": {"content_type": "str"}}
        ],
        "outputs": [{"name": "a", "parameters": {"binary_data": False}}],
    }
    names = await ignored(client, "/v2/models/m/versions/1/infer", infer)
    assert names == "inputs.0.parameters, outputs.0.parameters"


async def test_what_does_not_bear_on_tokens(client: httpx.AsyncClient) -> None:
    parameters = {"truncate": 3, "max_new_tokens": 5, "stop": ["a"], "seed": None, "other": 1}
    names = "parameters.max_new_tokens, parameters.other, parameters.stop, parameters.truncate"
    assert await ignored(client, "/tokenize", {"inputs": "x", "parameters": parameters}) == names
    assert await ignored(client, "/tokenize", {"inputs": "x", "parameters": {}}) == ""
    body = {"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": False, "tool_choice": "none"}
    assert await ignored(client, "/chat_tokenize", body) == ""
    body |= {"temperature": 0.5, "stream": True, "n": 2, "model": "other", "stop": "x", "logprobs": None}
    assert await ignored(client, "/chat_tokenize", body) == "model, n, stop, stream, temperature"


async def test_free_objects_have_no_unknown_fields(client: httpx.AsyncClient) -> None:
    body = {
        "messages": [{"role": "user", "content": "Hi"}],
        "chat_template_kwargs": {"anything": {"deep": 1}},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"whatever": 1}}}],
        "tool_choice": "none",
        "logit_bias": {"1": 1.0},
    }
    assert await ignored(client, CHAT, body) == ""


async def test_a_body_full_of_unknown_fields(client: httpx.AsyncClient) -> None:
    """An object's own come before those below it, and the header stays short whatever is sent."""
    message = {"role": "user", "content": "Hi", "x" * 5000: 1, **{f"field_{number}": 1 for number in range(50)}}
    names = await ignored(client, CHAT, {"messages": [message] * 20, "aaa": 1, "max_tokens": 1})
    assert len(names) < 4000 and names.startswith("aaa, messages.")


class Inner(RequestModel):
    """A nested object."""

    value: int = 0


class Outer(RequestModel):
    """One with a list, an object and nothing else."""

    items: list[Inner] = Field([])
    inner: Inner | None = None


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ({"inner": {"value": 1, "a": 1}, "b": 1}, ["b", "inner.a"]),
        ({"items": [{}, {"a": 1}, {"a": None}, {"c": [], "a": {}}]}, ["items.1.a", "items.3.c", "items.3.a"]),
        ({"items": [{"value": None}], "inner": None, "c": None}, []),
    ],
)
def test_paths(data: dict[str, Any], names: list[str]) -> None:
    found: list[str] = []
    parse(Outer, data, found)
    assert found == names


def test_a_wrong_branch_notes_nothing() -> None:
    """Objects that were tried as another type leave no names behind."""
    found: list[str] = []
    parse(ChatRequest, {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}, found)
    assert found == []


@pytest.mark.parametrize(
    ("parameters", "samples", "named"),
    [
        ({"do_sample": False, "temperature": 0.5}, True, True),
        ({"do_sample": False, "top_k": 5}, True, True),
        ({"do_sample": False, "top_p": 0.9}, True, True),
        ({"do_sample": False, "typical_p": 0.9}, True, True),
        ({"do_sample": True, "temperature": 0}, False, True),
        ({"do_sample": True, "temperature": 0, "top_p": 0.5}, False, True),
        ({"do_sample": False}, False, False),
        ({"do_sample": False, "temperature": 1.0}, False, False),
        ({"do_sample": False, "temperature": 0, "top_p": 0.5}, False, False),
        ({"do_sample": False, "repetition_penalty": 1.5}, False, False),
        ({"do_sample": True, "top_k": 5}, True, False),
        ({"do_sample": None, "top_k": 5}, True, False),
        ({"top_k": 5}, True, False),
    ],
)
async def test_do_sample_that_is_overruled(
    client: httpx.AsyncClient, engine: FakeEngine, parameters: dict[str, Any], samples: bool, named: bool
) -> None:
    """TGI's rule is kept: what only makes sense when sampling turns it on. The field is named."""
    body = {"inputs": "x", "parameters": {"max_new_tokens": 2, **parameters}}
    infer = {
        "id": "1",
        "inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": [65]}],
        "outputs": [{"name": "a"}],
        "parameters": body["parameters"],
    }
    for path in ("/generate", "/generate_stream", "/", "/invocations", "/v2/models/m/versions/1/infer"):
        names = await ignored(client, path, infer if path.startswith("/v2") else body)
        assert names == ("parameters.do_sample" if named else ""), path
        assert engine.requests[-1].sampling.do_sample == samples


@pytest.mark.parametrize(
    ("path", "body", "names"),
    [
        (CHAT, {"max_token": 2, "temprature": 0.5}, ["max_token (max_tokens)", "temprature (temperature)"]),
        (CHAT, {"maxTokens": 2, "n_predict": 3}, ["maxTokens (max_tokens)", "n_predict (max_tokens)"]),
        (CHAT, {"max_token": 2, "max_tokens": 2, "top_a": 1, "t" * 50: 1}, ["max_token", "top_a", "t" * 50]),
        ("/generate", {"max_new_tokens": 2}, ["max_new_tokens (parameters.max_new_tokens)"]),
        ("/generate", {"parameters": {"repeat_penalty": 2.0}}, ["parameters.repeat_penalty (repetition_penalty)"]),
    ],
)
async def test_near_names(client: httpx.AsyncClient, path: str, body: dict[str, Any], names: list[str]) -> None:
    """A mistyped field, one of another server's and one in the wrong place are answered with what was meant."""
    body = {**({"messages": [{"role": "user", "content": "Hi"}]} if path == CHAT else {"inputs": "x"}), **body}
    shown = [name.replace("(", "(did you mean ").replace(")", "?)") for name in names]
    assert await ignored(client, path, body) == ", ".join(sorted(shown))


async def test_near_names_are_in_the_log_once(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        await ignored(client, CHAT, {"messages": [{"role": "user", "content": "Hi"}], "max_token": 2, "other": 1})
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == ["Requests to chat_completions have a field that is ignored: max_token (did you mean max_tokens?)"]
