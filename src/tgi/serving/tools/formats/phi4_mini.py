"""Phi-4-mini: a list of objects between `<|tool_call|>` and its end; tools are a field of the system message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tgi.serving.chat.conversation import Tool
from tgi.serving.tools.format import Format
from tgi.serving.tools.shapes.objects import Objects


def _place(messages: list[dict[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
    functions = json.dumps([tool.for_template()["function"] for tool in tools], ensure_ascii=False)
    first, rest = (messages[0], messages[1:]) if messages and messages[0].get("role") == "system" else ({}, messages)
    return [{"role": "system", "content": "", **first, "tools": functions}, *rest]


def _knows(source: str) -> bool:
    return "<|/tool|>" in source or ("<|tool_call|>" in source and "<|/tool_call|>" in source)


def _in_messages(source: str) -> bool:
    return "message['tools']" in source or 'message["tools"]' in source or "message.tools" in source


PHI4_MINI = Format(
    "phi4_mini",
    Objects(begin=("<|tool_call|>",), end="<|/tool_call|>", listed=True),
    _knows,
    place=_place,
    places_if=_in_messages,
)
