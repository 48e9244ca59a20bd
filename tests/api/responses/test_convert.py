"""What items of the input become as conversations, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tgi.api.responses.convert import conversation_of
from tgi.api.responses.types import ResponsesRequest
from tgi.api.server.body import parse
from tgi.errors import TgiError
from tgi.serving.chat.conversation import Conversation, NamedTool

HI = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "name": "get_weather", "description": "Weather", "parameters": SCHEMA, "strict": True}
CALL = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "Paris"}'}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "12 degrees"}


def converted(items: list[Any], **body: Any) -> tuple[Conversation, list[str]]:
    ignored: list[str] = []
    parsed = parse(ResponsesRequest, {"input": items, **body}, ignored)
    parsed.check()
    assert isinstance(parsed.input, list)
    return conversation_of(parsed, parsed.input, ignored), ignored


def messages(*items: dict[str, Any], **body: Any) -> list[dict[str, Any]]:
    return converted(list(items), **body)[0].messages


def part(text: str, kind: str = "input_text") -> dict[str, Any]:
    return {"type": kind, "text": text}


def say(text: str, role: str = "user") -> dict[str, str]:
    return {"role": role, "content": text}


def thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "id": "rs_1", "summary": [], "content": [part(text, "reasoning_text")]}


SEEN_CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}


def test_messages() -> None:
    answer = {
        "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}],
    }  # fmt: skip
    conversation, ignored = converted([HI, answer, {"role": "user", "content": [part("a"), part("b")]}])
    assert conversation.messages == [HI, say("Hello", "assistant"), say("ab")]
    assert ignored == []  # what an answer has is taken back without a word


def test_a_round_trip_of_tools() -> None:
    first = say("Let me look.", "assistant")
    assert messages(HI, thought("Which?"), first, CALL, {**CALL, "call_id": "call_2"}, RESULT, say("Well?")) == [
        HI,
        {
            "role": "assistant",
            "content": "Let me look.",
            "reasoning_content": "Which?",
            "tool_calls": [SEEN_CALL, {**SEEN_CALL, "id": "call_2"}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "12 degrees", "name": "get_weather"},
        say("Well?"),
    ]


def test_turns_of_the_assistant_are_kept_apart() -> None:
    two = [say("One.", "assistant"), say("Two.", "assistant")]
    assert messages(HI, *two) == [HI, *two]
    assert messages(HI, CALL, say("Done.", "assistant"))[1:] == [
        {"role": "assistant", "content": "", "tool_calls": [SEEN_CALL]},
        say("Done.", "assistant"),
    ]
    assert [len(one) for one in messages(HI, thought("a"), thought("b"))] == [2, 3, 3]


def test_a_summary_stands_in_for_reasoning() -> None:
    summary = {"type": "reasoning", "summary": [part("a", "summary_text"), part("b", "summary_text")]}
    assert messages(HI, summary, say("x", "assistant"))[1]["reasoning_content"] == "a\n\nb"


@pytest.mark.parametrize("given", ["nonsense", "[1]", "", '{"a": 1'])
def test_arguments_that_are_no_object_stay_text(given: str) -> None:
    (_, message) = messages(HI, {**CALL, "arguments": given})
    assert message["tool_calls"][0]["function"]["arguments"] == given


def test_instructions() -> None:
    assert messages(HI, instructions="Be brief.") == [say("Be brief.", "system"), HI]
    told = [say("Be brief.", "developer"), say("Be kind.", "system"), HI]
    assert messages(*told) == [say("Be brief.\n\nBe kind.", "system"), HI]
    assert messages(*told, instructions="Be.")[0] == say("Be.\n\nBe brief.\n\nBe kind.", "system")
    assert messages(HI, say("Now be long.", "developer")) == [HI, say("Now be long.", "developer")]


def test_tools() -> None:
    conversation, ignored = converted([HI], tools=[{"type": "web_search"}, WEATHER, {"type": "custom", "name": "x"}])
    (tool,) = conversation.tools
    assert (tool.name, tool.description, tool.parameters, tool.strict) == ("get_weather", "Weather", SCHEMA, True)
    assert "tools.0" in ignored and "tools.2" in ignored and "tools.1" not in ignored


@pytest.mark.parametrize(
    ("choice", "becomes", "names"),
    [
        ("auto", "auto", ["get_weather", "f"]),
        ("none", "none", ["get_weather", "f"]),
        ("required", "required", ["get_weather", "f"]),
        ({"type": "function", "name": "f"}, NamedTool("f"), ["get_weather", "f"]),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
            "required",
            ["f"],
        ),
    ],
)
def test_choice(choice: Any, becomes: Any, names: list[str]) -> None:
    tools = [WEATHER, {"type": "function", "name": "f", "parameters": None, "strict": None}]
    conversation, ignored = converted([HI], tools=tools, tool_choice=choice, parallel_tool_calls=False)
    assert (conversation.choice, [tool.name for tool in conversation.tools]) == (becomes, names)
    assert not conversation.parallel and ignored == []


def test_effort() -> None:
    assert converted([HI], reasoning={"effort": "high", "summary": "auto"})[0].reasoning_effort == "high"
    assert converted([HI])[0].reasoning_effort is None


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "name": "w", "strict": True, "schema": SCHEMA}, SCHEMA),
    ],
)
def test_format(form: Any, schema: Any) -> None:
    conversation, ignored = converted([HI], text={"format": form})
    grammar = conversation.grammar
    assert (grammar and {**json.loads(grammar.text), "x-guidance": None}) == (schema and {**schema, "x-guidance": None})
    assert ignored == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"text": {"format": {"type": "xml"}}}, "`text.format`"),
        ({"text": {"format": {}}}, "`text.format`"),
        ({"input": None}, "`input` is missing"),
        ({"input": []}, "`input` cannot be empty"),
        ({"input": 5}, "input: expected a string or an array of items"),
        ({"input": ["x"]}, "input[0]: expected an input item"),
        ({"input": [{}]}, "input[0]: expected an input item"),
        ({"input": [{"role": "bad", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0]: missing field `content`"),
        ({"input": [{"type": "function_call", "call_id": "1", "name": "f"}]}, "missing field `arguments`"),
        (
            {"input": [HI, {"role": "user", "content": [{"type": "input_image", "image_url": "file:///etc/passwd"}]}]},
            "`input[1].content[0]`: images are not supported",
        ),
        (
            {"input": [{**RESULT, "output": [{"type": "input_file", "file_url": "http://localhost/"}]}]},
            "`input[0].output[0]`: parts of type `input_file` are not supported",
        ),
        ({"background": True}, "`background` is not supported"),
        ({"conversation": "conv_1"}, "`conversation` is not supported"),
        ({"prompt": {"id": "pmpt_1"}}, "`prompt` is not supported"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "`metadata`"),
        ({"metadata": {"x": "x" * 513}}, "`metadata`"),
        ({"metadata": {"x": 1}}, "metadata"),
        ({"tools": [{"type": "function"}]}, "missing field `name`"),
        ({"tools": [{"type": "function", "name": "f", "parameters": []}]}, "tools[0].parameters"),
        ({"tools": [5]}, "tools[0]: expected a tool"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"tool_choice": {"type": "web_search"}}, "`tool_choice` of type `web_search`"),
        ({"tool_choice": {"type": "function"}}, "`tool_choice` needs the `name`"),
        ({"truncation": "some"}, "truncation"),
        ({"max_output_tokens": -1}, "max_output_tokens"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
    ],
)
def test_refused_by_name(body: dict[str, Any], words: str) -> None:
    with pytest.raises(TgiError) as caught:
        ignored: list[str] = []
        parsed = parse(ResponsesRequest, {"input": [HI], **body}, ignored)
        parsed.check()
        assert isinstance(parsed.input, list)
        conversation_of(parsed, parsed.input, ignored)
    assert words in caught.value.text
    assert caught.value.param or "missing" in words
