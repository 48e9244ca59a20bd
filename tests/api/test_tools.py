"""Tools and reasoning on `/v1/chat/completions`, as OpenAI has them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from tests.api.fake import INFO, SPECIAL, FakeEngine, build_app
from tgi.serving.chat_template import ChatTemplate
from tgi.serving.tools import schema_check

ROUTE = "/v1/chat/completions"
ASKED = [{"role": "user", "content": "The weather in Paris?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    },
    {"type": "function", "function": {"name": "now"}},
]
HERMES = ChatTemplate(
    {
        "default": "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}{% for m in messages %}[{{ m.role }}]"
        "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% if enable_thinking %}<think>\n{% endif %}{% endif %}"
        "{# </think> #}"
    },
    SPECIAL,
)
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@asynccontextmanager
async def serving(reply: str, template: ChatTemplate = HERMES, **settings: Any) -> AsyncIterator[Any]:
    engine = FakeEngine(replace(INFO, max_total_tokens=8000, max_input_tokens=7999), reply)
    transport = httpx.ASGITransport(build_app(engine, template, **settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        client.engine = engine  # type: ignore[attr-defined]
        yield client


async def chat(client: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await client.post(ROUTE, json={"messages": ASKED, "tools": TOOLS, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def streamed(client: httpx.AsyncClient, **fields: Any) -> list[Any]:
    answer = await client.post(ROUTE, json={"messages": ASKED, "tools": TOOLS, "stream": True, **fields})
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def prompt_of(client: Any) -> str:
    return bytes_of(client.engine.requests[-1].prompt_ids)


def bytes_of(ids: list[int]) -> str:
    from tests.api.fake import TOKENIZER

    return TOKENIZER.decode(ids)


async def test_a_call() -> None:
    async with serving(f"Let me see.\n{CALL}") as client:
        choice = (await chat(client))["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        (call,) = choice["message"]["tool_calls"]
        assert call.pop("id").startswith("call_")
        assert call == {"type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
        assert choice["message"]["content"] == "Let me see."
        assert '"name": "get_weather"' in prompt_of(client)


async def test_content_is_null_beside_calls_alone() -> None:
    async with serving(CALL + "\n" + CALL.replace("Paris", "Rome")) as client:
        message = (await chat(client))["choices"][0]["message"]
        assert message["content"] is None
        assert [json.loads(call["function"]["arguments"])["city"] for call in message["tool_calls"]] == [
            "Paris",
            "Rome",
        ]
        message = (await chat(client, parallel_tool_calls=False))["choices"][0]["message"]
        assert len(message["tool_calls"]) == 1


async def test_a_stream_of_a_call() -> None:
    """The first delta has id, type, name and empty arguments, the last chunk nothing but the finish reason."""
    async with serving(CALL) as client:
        chunks = await streamed(client)
        choices = [chunk["choices"][0] for chunk in chunks]
        deltas = [one for choice in choices for one in choice["delta"].get("tool_calls", [])]
        assert deltas[0].pop("id").startswith("call_")
        first = {"index": 0, "function": {"arguments": "", "name": "get_weather"}, "type": "function"}
        assert deltas[0] == first
        assert all(set(one) == {"index", "function"} and set(one["function"]) == {"arguments"} for one in deltas[1:])
        assert "".join(one["function"]["arguments"] for one in deltas) == '{"city": "Paris"}'
        assert choices[0]["delta"]["role"] == "assistant"
        assert (choices[-1]["delta"], choices[-1]["finish_reason"]) == ({}, "tool_calls")
        assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
        assert not any("content" in choice["delta"] for choice in choices)
        assert len(choices) == len(deltas) + 1


async def test_text_stays_possible_and_unconstrained() -> None:
    async with serving("It rains. a < b") as client:
        choice = (await chat(client, tool_choice="auto"))["choices"][0]
        assert choice == {
            "index": 0,
            "message": {"role": "assistant", "content": "It rains. a < b"},
            "logprobs": None,
            "finish_reason": "stop",
        }
        assert client.engine.requests[-1].grammar is None
        chunks = await streamed(client)
        text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
        assert text == "It rains. a < b"
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_call_without_arguments() -> None:
    for written in ('{"name": "now"}', '{"name": "now", "arguments": {}}', '{"name": "now", "arguments": null}'):
        async with serving(f"<tool_call>{written}</tool_call>") as client:
            message = (await chat(client))["choices"][0]["message"]
            assert message["tool_calls"][0]["function"] == {"name": "now", "arguments": "{}"}


async def test_a_cut_call_ends_with_length() -> None:
    async with serving(CALL) as client:
        choice = (await chat(client, max_tokens=60))["choices"][0]
        assert choice["finish_reason"] == "length"
        arguments = choice["message"]["tool_calls"][0]["function"]["arguments"]
        assert '{"city": "Paris"}'.startswith(arguments)
        chunks = await streamed(client, max_tokens=60)
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"


async def test_the_round_trip() -> None:
    async with serving(CALL) as client:
        message = (await chat(client))["choices"][0]["message"]
        id = message["tool_calls"][0]["id"]
        client.engine.reply = "Rain in Paris."
        turns = [*ASKED, message, {"role": "tool", "tool_call_id": id, "content": "rain"}]
        choice = (await chat(client, messages=turns))["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("Rain in Paris.", "stop")
        assert '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>' in prompt_of(client)
        assert "[tool]rain" in prompt_of(client)


async def test_none_hides_the_tools() -> None:
    async with serving(CALL) as client:
        choice = (await chat(client, tool_choice="none"))["choices"][0]
        assert choice["message"] == {"role": "assistant", "content": CALL}
        assert "get_weather" not in prompt_of(client)


async def test_a_template_without_tools_is_told_of_them() -> None:
    plain = ChatTemplate({"default": "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"})
    async with serving('{"name": "now", "arguments": {}}', plain) as client:
        message = (await chat(client))["choices"][0]["message"]
        assert message["tool_calls"][0]["function"] == {"name": "now", "arguments": "{}"}
        assert prompt_of(client).startswith("[system]You can call these functions:\n")
        id = message["tool_calls"][0]["id"]
        turns = [*ASKED, message, {"role": "tool", "tool_call_id": id, "content": "noon"}]
        await chat(client, messages=turns, tool_prompt="Do it.")
        assert "Do it." in prompt_of(client)
        assert '[assistant]{"name": "now", "arguments": {}}[user]Result of now:\nnoon[assistant]' in prompt_of(client)


async def test_tool_prompt_goes_to_the_last_message() -> None:
    async with serving(CALL) as client:
        await chat(client, tool_prompt="Use tools.")
        assert "Paris?\n---\nUse tools.[assistant]" in prompt_of(client)


async def test_chat_tokenize_shows_the_tools() -> None:
    async with serving(CALL) as client:
        answer = (await client.post("/chat_tokenize", json={"messages": ASKED, "tools": TOOLS})).json()
        assert '"name": "get_weather"' in answer["templated_text"]


@pytest.mark.parametrize("begun", [False, True])
async def test_reasoning(begun: bool) -> None:
    reply = "Hm, Paris.\n</think>\n\nIt rains." if begun else "<think>\nHm, Paris.\n</think>\n\nIt rains."
    async with serving(reply) as client:
        fields: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": begun}}
        body = await chat(client, tools=None, **fields)
        message = body["choices"][0]["message"]
        assert (message["reasoning_content"], message["reasoning"]) == ("Hm, Paris.", "Hm, Paris.")
        assert message["content"] == "It rains."
        counted = body["usage"]["completion_tokens_details"]["reasoning_tokens"]
        assert counted == len("Hm, Paris.\n</think>" if begun else "\nHm, Paris.\n</think>")
        chunks = await streamed(client, tools=None, stream_options={"include_usage": True}, **fields)
        assert chunks.pop()["usage"]["completion_tokens_details"]["reasoning_tokens"] == counted
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        assert "".join(one.get("reasoning_content", "") for one in deltas) == "Hm, Paris."
        assert "".join(one.get("content", "") for one in deltas) == "It rains."


async def test_reasoning_before_a_call() -> None:
    async with serving(f"<think>\nHm.\n</think>\n\n{CALL}") as client:
        message = (await chat(client))["choices"][0]["message"]
        assert (message["content"], message["reasoning_content"]) == (None, "Hm.")
        assert len(message["tool_calls"]) == 1


async def test_reasoning_effort_reaches_the_template() -> None:
    async with serving("Hm.</think>Yes.") as client:
        await chat(client, tools=None, reasoning_effort="high")
        assert prompt_of(client).endswith("[assistant]<think>\n")
        await chat(client, tools=None, reasoning_effort="none")
        assert prompt_of(client).endswith("[assistant]")


async def test_what_has_no_effect_is_named() -> None:
    plain = ChatTemplate({"default": "{% for m in messages %}{{ m.content }}{% endfor %}"})
    async with serving("Yes.", plain) as client:
        fields = {"messages": ASKED, "reasoning_effort": "low", "max_thinking_tokens": 5}
        answer = await client.post(ROUTE, json=fields)
        assert answer.headers["x-tgi-ignored"] == "max_thinking_tokens, reasoning_effort"


@pytest.mark.parametrize(
    ("parameters", "param", "words"),
    [
        ({"type": {}}, "tools.0.function.parameters", "`type` must be one of"),
        (
            {"properties": {"a": {"pattern": 5}}},
            "tools.0.function.parameters",
            "`properties.a.pattern` must be a string",
        ),
        ({"properties": []}, "tools.0.function.parameters", "`properties` must be an object"),
        ({"required": "a"}, "tools.0.function.parameters", "`required` must be a list"),
        ({"type": "string"}, "tools.0.function.parameters", "`type` must be"),
        ({"anyOf": [{"minimum": "x"}]}, "tools.0.function.parameters", "`anyOf.0.minimum` must be a number"),
    ],
)
async def test_schemas_that_are_none(parameters: Any, param: str, words: str) -> None:
    async with serving("x") as client:
        tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
        answer = await client.post(ROUTE, json={"messages": ASKED, "tools": tools})
        assert answer.status_code == 422
        error = answer.json()["error"]
        assert error["param"] == param
        assert words in error["message"]


async def test_too_much_of_everything() -> None:
    async with serving("x") as client:

        async def refused(tools: Any, **fields: Any) -> str:
            answer = await client.post(ROUTE, json={"messages": ASKED, "tools": tools, **fields})
            assert answer.status_code == 422
            return answer.json()["error"]["message"]

        assert "up to 512 tools. Given: 10000" in await refused([TOOLS[0]] * 10_000)
        deep: dict[str, Any] = {}
        for _ in range(80):
            deep = {"properties": {"a": deep}}
        assert "nested more than 64" in await refused([{"function": {"name": "f", "parameters": deep}}])
        for levels in (300, 500):
            example = json.loads("[" * levels + "]" * levels)
            assert "nested more than 200" in await refused([{"function": {"name": "f", "parameters": {"x": example}}}])
        wide = {"properties": {str(number): {} for number in range(30_000)}}
        assert "may have 20000 parts" in await refused([{"function": {"name": "f", "parameters": wide}}])
        chain = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
        for parameters in ({"$ref": "#"}, {"properties": {"x": {"$ref": "#/$defs/b"}}, **chain}):
            assert "$ref` refers to itself" in await refused([{"function": {"name": "f", "parameters": parameters}}])
        named = {"$ref": "#node", "$defs": {"n": {"$anchor": "node", "type": "object"}}}
        assert schema_check.problem(named, schema_check.Nodes()) is None, "an anchor elsewhere, not the schema itself"
        assert "name" in await refused([{"function": {"name": "a b"}}])
        assert "max_thinking_tokens" in await refused([], max_thinking_tokens=2_000_000)


async def test_template_arguments_that_nobody_may_set() -> None:
    async with serving("x") as client:
        for name in ("tokenize", "chat_template"):
            answer = await client.post(ROUTE, json={"messages": ASKED, "chat_template_kwargs": {name: True}})
            assert answer.status_code == 422
            assert f"cannot set `{name}`" in answer.json()["error"]["message"]
        answer = await client.post(ROUTE, json={"messages": ASKED, "chat_template": "{{ messages }}"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "chat_template")
        assert "--chat-template" in answer.json()["error"]["message"]


async def test_the_format_by_flag() -> None:
    async with serving("[now()]", tool_call_parser="pythonic") as client:
        message = (await chat(client))["choices"][0]["message"]
        assert message["tool_calls"][0]["function"] == {"name": "now", "arguments": "{}"}


async def test_schemas_that_no_grammar_can_express() -> None:
    async with serving(CALL) as client:
        parameters = {"type": "object", "properties": {"to": {"type": "string", "pattern": "(?=a)b"}}}
        tools = [{"type": "function", "function": {"name": "f", "strict": True, "parameters": parameters}}]
        fields = {"messages": ASKED, "tools": tools, "tool_choice": "required"}
        answer = await client.post(ROUTE, json=fields)
        assert answer.status_code == 422
        assert answer.json()["error"]["param"] == "tools"
        assert "look-around" in answer.json()["error"]["message"]


async def test_formats_that_nobody_knows_are_noted() -> None:
    parameters = {"type": "object", "properties": {"n": {"type": "string", "format": "phone"}}}
    tool = {"type": "function", "function": {"name": "call", "parameters": parameters}}
    async with serving(CALL) as client:
        body = {"messages": ASKED, "tools": [tool], "tool_choice": "required"}
        answer = await client.post(ROUTE, json=body)
        assert answer.status_code == 200 and answer.headers["x-tgi-ignored"] == "tools.properties.n.format"
        free = await client.post(ROUTE, json={**body, "tool_choice": "auto"})
        assert "x-tgi-ignored" not in free.headers


async def test_required_and_named_calls_constrain() -> None:
    async with serving(CALL) as client:
        for choice in ("required", "get_weather", {"type": "function", "function": {"name": "get_weather"}}):
            message = (await chat(client, tool_choice=choice))["choices"][0]["message"]
            assert len(message["tool_calls"]) == 1
            grammar = client.engine.requests[-1].grammar
            assert grammar.kind == "lark"
            assert ("now" in grammar.text) == (choice == "required")
