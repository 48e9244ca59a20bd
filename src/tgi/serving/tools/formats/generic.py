"""For models whose template knows no tools: they are told of them, and answer with a JSON object or a list of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tgi.serving.chat.conversation import Tool
from tgi.serving.tools.format import Format
from tgi.serving.tools.shapes.objects import Objects

PROMPT = (
    'To call a function, answer with nothing but a JSON object such as {"name": "a_function", "arguments": {...}}. '
    "If no function helps, answer in plain text."
)


def described(tools: Sequence[Tool], prompt: str | None) -> str:
    """What the model is told."""
    functions = "\n".join(json.dumps(tool.for_template()["function"], ensure_ascii=False) for tool in tools)
    return f"You can call these functions:\n{functions}\n\n{PROMPT if prompt is None else prompt.strip()}"


def plain_history(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Earlier calls and their results as text, results as turns of the user; turns of one role become one.

    The messages themselves where there are none: copies of a long history take time to make and to free.
    """
    if not any(message.get("tool_calls") or message.get("role") == "tool" for message in messages):
        return messages
    names: dict[Any, str] = {}
    plain: list[dict[str, Any]] = []
    for message in messages:
        calls = message.get("tool_calls")
        if calls:
            names |= {call.get("id"): call["function"]["name"] for call in calls}
            written = "\n".join(_written(call["function"]) for call in calls)
            text = _text(message.get("content"))
            message = {"role": message["role"], "content": f"{text}\n{written}" if text else written}
        elif message.get("role") == "tool":
            name = message.get("name") or names.get(message.get("tool_call_id"), "the function")
            result = f"Result of {name}:\n{_text(message.get('content'))}"
            if plain and plain[-1].get("results"):
                plain[-1] = {**plain[-1], "content": f"{plain[-1]['content']}\n\n{result}"}
                continue
            message = {"role": "user", "content": result, "results": True}
        elif message.get("role") == "user" and plain and plain[-1].get("results"):
            plain[-1] = {**plain[-1], "content": f"{plain[-1]['content']}\n\n{_text(message.get('content'))}"}
            continue
        plain.append(message)
    return [{name: value for name, value in message.items() if name != "results"} for message in plain]


def _written(function: dict[str, Any]) -> str:
    return json.dumps({"name": function["name"], "arguments": function.get("arguments") or {}}, ensure_ascii=False)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content)
    return content or ""


GENERIC = Format("json", Objects())
