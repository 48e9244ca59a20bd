"""What Anthropic's bodies become as conversations, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tgi.api.anthropic.blocks import arguments
from tgi.api.anthropic.convert import conversation_of
from tgi.api.anthropic.types import CountRequest
from tgi.api.server.body import parse
from tgi.errors import MalformedRequestError, TgiError
from tgi.serving.chat.conversation import Conversation, NamedTool

HI = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "get_weather", "description": "Weather", "input_schema": SCHEMA}
IMAGE = {"type": "image", "source": {"type": "url", "url": "http://localhost/secret.png"}}
BILLING = "x-anthropic-billing-header: cc_version=2.1.37.3a3; cc_entrypoint=cli; cch=4ae1f;"


def converted(**body: Any) -> tuple[Conversation, list[str]]:
    ignored: list[str] = []
    conversation = conversation_of(parse(CountRequest, {"messages": [HI], **body}, ignored), ignored)
    return conversation, ignored


def refused(**body: Any) -> TgiError:
    with pytest.raises(TgiError) as caught:
        converted(**body)
    return caught.value


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


@pytest.mark.parametrize(
    ("system", "becomes"),
    [
        ("Be brief.", "Be brief."),
        ("", None),
        ([], None),
        ([text("One."), text(""), text("Two.")], "One.\n\nTwo."),
        ([text(BILLING), text("You are a CLI."), text("Rules.")], "You are a CLI.\n\nRules."),
        ([text(BILLING)], None),
        (f"{BILLING}\nBe brief.", "Be brief."),
        (f"\n{BILLING}\n\n{BILLING}\nBe brief.", "Be brief."),
        (f"Be brief.\n{BILLING}", f"Be brief.\n{BILLING}"),
        (f"{BILLING.upper()}\nBe brief.", "Be brief."),
    ],
)
def test_system(system: Any, becomes: str | None) -> None:
    """The nonce of Claude Code is left out, and said to be."""
    conversation, ignored = converted(system=system)
    first = [] if becomes is None else [{"role": "system", "content": becomes}]
    assert conversation.messages == [*first, HI]
    dropped = BILLING.lower() in str(system).lower() and not str(system).startswith("Be")
    assert ignored == (["system.x-anthropic-billing-header"] if dropped else [])


def test_prompts_that_differ_in_the_nonce_alone_are_the_same() -> None:
    both = [converted(system=[text(BILLING.replace("4ae1f", nonce)), text("Rules.")])[0] for nonce in ("00000", "4ae1")]
    assert both[0] == both[1]


def test_a_round_trip_of_tools() -> None:
    thought = {"type": "thinking", "thinking": "Which city?", "signature": "x"}
    use = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("12"), text("degrees")]}
    failed = {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no such city", "is_error": True}
    empty = {"type": "tool_result", "tool_use_id": "toolu_1"}
    messages = [
        {"role": "user", "content": [text("Weather?"), text("In Paris.")]},
        {"role": "assistant", "content": [thought, text("Let me look."), use]},
        {"role": "user", "content": [result, failed, empty, text("Well?")]},
    ]
    conversation, ignored = converted(messages=messages, tools=[WEATHER])
    call = {"id": "toolu_1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    assert conversation.messages == [
        {"role": "user", "content": "Weather?\n\nIn Paris."},
        {
            "role": "assistant",
            "content": "Let me look.",
            "reasoning_content": "Which city?",
            "tool_calls": [call],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "12\n\ndegrees", "name": "get_weather"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: no such city"},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "", "name": "get_weather"},
        {"role": "user", "content": "Well?"},
    ]
    assert ignored == []
    (tool,) = conversation.tools
    assert (tool.name, tool.description, tool.parameters, tool.strict) == ("get_weather", "Weather", SCHEMA, False)


def test_an_empty_list_of_blocks_is_an_empty_text() -> None:
    for role in ("user", "assistant"):
        conversation, _ = converted(messages=[HI, {"role": role, "content": []}])
        assert conversation.messages[1] == {"role": role, "content": ""}


def test_unknown_tools_are_noted() -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
    conversation, ignored = converted(tools=[search, {**WEATHER, "type": "custom", "strict": True}])
    assert [tool.name for tool in conversation.tools] == ["get_weather"] and conversation.tools[0].strict
    assert "tools.0" in ignored and not any(name.startswith("tools.1") for name in ignored)


@pytest.mark.parametrize(
    ("choice", "becomes"),
    [
        (None, "auto"),
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "get_weather"}, NamedTool("get_weather")),
    ],
)
@pytest.mark.parametrize("parallel", [None, True, False])
def test_choice(choice: dict[str, Any] | None, becomes: Any, parallel: bool | None) -> None:
    if choice is not None and parallel is not None:
        choice = {**choice, "disable_parallel_tool_use": not parallel}
    conversation, _ = converted(tools=[WEATHER], tool_choice=choice)
    assert conversation.choice == becomes
    assert conversation.parallel == (choice is None or parallel is not False)


def test_thinking() -> None:
    conversation, _ = converted(thinking={"type": "enabled", "budget_tokens": 1024})
    assert (conversation.max_thinking_tokens, conversation.reasoning_effort) == (1024, None)
    conversation, _ = converted(thinking={"type": "disabled"}, output_config={"effort": "high"})
    assert (conversation.max_thinking_tokens, conversation.reasoning_effort) == (None, "none")
    conversation, _ = converted(thinking={"type": "adaptive"}, output_config={"effort": "high"})
    assert (conversation.max_thinking_tokens, conversation.reasoning_effort) == (None, "high")


def test_format() -> None:
    form = {"type": "json_schema", "schema": SCHEMA}
    grammar = converted(output_config={"format": form})[0].grammar
    assert grammar is not None and grammar.kind == "json_schema" and SCHEMA.items() <= json.loads(grammar.text).items()
    assert converted(output_config={"effort": "low"})[0].grammar is None
    for wrong in ({"type": "text"}, {"type": "json_schema"}, {"type": "json_schema", "schema": 5}, {}):
        assert refused(output_config={"format": wrong}).param == "output_config.format"


def test_cache_control_is_noted_by_its_place() -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    _, ignored = converted(
        system=[text("Rules.", **cached)],
        messages=[{"role": "user", "content": [text("Hi", **cached)]}],
        tools=[{**WEATHER, **cached}],
        metadata={"user_id": "me"},
    )
    assert set(ignored) == {
        "metadata",
        "system.0.cache_control",
        "messages.0.content.0.cache_control",
        "tools.0.cache_control",
    }


def test_redacted_thinking_is_noted() -> None:
    blocks = [{"type": "redacted_thinking", "data": "x"}, text("Hi")]
    conversation, ignored = converted(messages=[HI, {"role": "assistant", "content": blocks}])
    assert conversation.messages[1] == {"role": "assistant", "content": "Hi"}
    assert ignored == ["messages.1.content.0"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": []}, "`messages` cannot be empty"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "`messages[0].content[0]`: images are not supported"),
        (
            {"messages": [HI, {"role": "user", "content": [text("x"), {"type": "document", "source": {}}]}]},
            "`messages[1].content[1]`: blocks of type `document` are not supported",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [IMAGE]}]}
                ]
            },
            "`messages[0].content[0].content[0]`: images are not supported",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]}]},
            "a `tool_use` block cannot be in a message of role `user`",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_result", "tool_use_id": "1"}]}]},
            "a `tool_result` block cannot be in a message of role `assistant`",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0]: missing field `content`"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content: expected a string or an array"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]: expected a content block"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0]: expected a content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "missing field `text`"),
        ({"tools": [{"name": "f"}]}, "missing field `input_schema`"),
        ({"tools": [{"input_schema": {}}]}, "missing field `name`"),
        ({"tools": ["x"]}, "tools[0]: expected a tool"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice: missing field `name`"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": -1}}, "thinking.budget_tokens"),
        ({"system": [IMAGE]}, "system[0].type"),
        ({"system": 5}, "system: expected a string or text blocks"),
    ],
)
def test_refused_by_name(body: dict[str, Any], words: str) -> None:
    error = refused(**body)
    assert words in error.text
    assert isinstance(error, MalformedRequestError) or error.param


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ("{}", {}),
        ("", {}),
        ('{"a": 1}', {"a": 1}),
        ('{"a": 1, "b": [1, 2', {"a": 1, "b": [1, 2]}),
        ('{"a": "x', {}),
        ("[1]", {}),
        ("nonsense", {}),
        ('{"a": NaN}', {}),
    ],
)
def test_arguments_that_were_cut(given: str, becomes: dict[str, Any]) -> None:
    assert arguments(given) == becomes
