"""OpenAI's plain objects as a conversation, and an answer as one of its messages: for `LLM.chat`.

Owns what the words mean; routes, whose bodies are typed, share the choice among tools.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tgi.errors import ToolError
from tgi.serving.chat.conversation import Choice, NamedTool, Tool
from tgi.serving.chat.parts import Part, put_together


def choice_of(choice: str | Mapping[str, Any] | None) -> Choice:
    """OpenAI's words and objects, TGI's `{"function": {"name": ...}}` and bare name. Raises ToolError."""
    if choice is None or choice == "auto":
        return "auto"
    if choice == "none":
        return "none"
    if choice == "required":
        return "required"
    if isinstance(choice, str):
        return NamedTool(choice)
    function = choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
    if not isinstance(name, str) or choice.get("type", "function") != "function":
        raise ToolError(
            '`tool_choice` must be "auto", "none", "required", or {"type": "function", "function": {"name": ...}}',
            param="tool_choice",
        )
    return NamedTool(name)


def tools_of(definitions: Sequence[Mapping[str, Any]] | None) -> list[Tool]:
    """`{"type": "function", "function": {...}}`, or the function alone. Raises ToolError."""
    tools = []
    for number, definition in enumerate(definitions or ()):
        function = definition.get("function", definition)
        name = function.get("name") if isinstance(function, Mapping) else None
        if definition.get("type", "function") != "function" or not isinstance(name, str):
            raise ToolError(f"`tools.{number}` must be a function with a name", param=f"tools.{number}")
        schema = function.get("parameters", function.get("arguments"))
        tools.append(
            Tool(
                name,
                function.get("description"),
                schema,
                bool(function.get("strict")),
                schema_at=".function.parameters" if function is not definition else ".parameters",
            )
        )
    return tools


def for_template(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message with arguments of calls as objects, where they are some."""
    plain = {name: value for name, value in message.items() if value is not None}
    plain.setdefault("content", "")
    if plain.get("tool_calls"):
        plain["tool_calls"] = [_call(call) for call in plain["tool_calls"]]
    return plain


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    if "arguments" in function:
        function["arguments"] = arguments_for_template(function["arguments"])
    return {"type": "function", "id": "", **call, "function": function}


def arguments_for_template(arguments: Any) -> Any:
    """Arguments of an earlier call as transformers has them: JSON text of an object as that object."""
    if not isinstance(arguments, str):
        return arguments
    try:
        parsed = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return arguments
    return parsed if isinstance(parsed, dict) else arguments


def message_of(parts: Iterable[Part]) -> dict[str, Any]:
    """The assistant's message: content, null beside calls alone, and where there are some calls and reasoning."""
    whole = put_together(parts)
    message: dict[str, Any] = {"role": "assistant", "content": whole.text}
    if whole.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in whole.calls
        ]
    if whole.reasoning:
        message["reasoning_content"] = whole.reasoning
    return message
