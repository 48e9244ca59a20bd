"""From the items of a response's input to a conversation as templates see it.

Owns what each item becomes, and which of them cannot. Does not own the types (`types`, `items`), what is kept (`store`)
nor templates (`serving`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tgi.api.responses.items import (
    ResponseInputCall,
    ResponseInputCallOutput,
    ResponseInputItem,
    ResponseInputMessage,
    ResponseInputReasoning,
    ResponseOtherPart,
    ResponsePart,
)
from tgi.api.responses.types import ResponseFunctionTool, ResponsesRequest
from tgi.errors import ToolError, ValidationError
from tgi.messages import Grammar
from tgi.serving.chat.conversation import Choice, Conversation, NamedTool, Tool
from tgi.serving.chat.openai_form import arguments_for_template
from tgi.serving.grammars.build import response_grammar

FORMAT = "text.format"
BETWEEN_TEXTS = "\n\n"
"""Between instructions and what else the model is told first."""
TOLD_FIRST = frozenset({"system", "developer"})


def conversation_of(
    body: ResponsesRequest,
    items: Sequence[ResponseInputItem],
    ignored: list[str],
    places: Sequence[int] | None = None,
) -> Conversation:
    """What the body means with these items: those it goes on from, and its own.

    places: where each of them is in the body, for errors; None: where it is among the items.

    Raises ValidationError and ToolError.
    """
    tools = _tools(body, ignored)
    choice, tools = _choice(body, tools)
    return Conversation(
        messages=_Messages(body.instructions).of(items, range(len(items)) if places is None else places),
        tools=tools,
        choice=choice,
        parallel=body.parallel_tool_calls,
        reasoning_effort=None if body.reasoning is None else body.reasoning.effort,
        grammar=_grammar(body, ignored),
    )


def _grammar(body: ResponsesRequest, ignored: list[str]) -> Grammar | None:
    if body.text is None or body.text.format is None:
        return None
    return response_grammar(body.text.format, FORMAT, ignored)


class _Messages:
    """Puts items together: reasoning, text and calls that follow each other are one message of the assistant."""

    def __init__(self, instructions: str | None) -> None:
        self._made: list[dict[str, Any]] = []
        self._names: dict[str, str] = {}
        """Call id -> name of the tool."""
        if instructions:
            self._made.append({"role": "system", "content": instructions})

    def of(self, items: Sequence[ResponseInputItem], places: Sequence[int]) -> list[dict[str, Any]]:
        for number, item in zip(places, items, strict=True):
            place = f"input[{number}]"
            if isinstance(item, ResponseInputMessage):
                self._message(item.role, _text(item.content, f"{place}.content"))
            elif isinstance(item, ResponseInputReasoning):
                texts = item.content or item.summary
                self._assistant("reasoning_content")["reasoning_content"] = _text(texts, place, BETWEEN_TEXTS)
            elif isinstance(item, ResponseInputCall):
                self._names[item.call_id] = item.name
                self._assistant().setdefault("tool_calls", []).append(_call(item))
            elif isinstance(item, ResponseInputCallOutput):
                self._result(item, _text(item.output, f"{place}.output"))
        return self._made

    def _message(self, role: str, text: str) -> None:
        if role == "assistant":
            self._assistant("content")["content"] = text
        elif role in TOLD_FIRST and len(self._made) == 1 and self._made[0]["role"] == "system":
            # Many templates know one message of that kind, at the beginning.
            self._made[0]["content"] += BETWEEN_TEXTS + text
        else:
            self._made.append({"role": "system" if role in TOLD_FIRST and not self._made else role, "content": text})

    def _assistant(self, field: str | None = None) -> dict[str, Any]:
        """The assistant's message that is not complete yet; `field`: what it must not have, nor anything behind it."""
        last = self._made[-1] if self._made else {}
        order = ("reasoning_content", "content", "tool_calls")
        later = order[order.index(field) :] if field is not None else ()
        if last.get("role") != "assistant" or any(last.get(name) for name in later):
            last = {"role": "assistant", "content": ""}
            self._made.append(last)
        return last

    def _result(self, item: ResponseInputCallOutput, text: str) -> None:
        message = {"role": "tool", "tool_call_id": item.call_id, "content": text}
        if (name := self._names.get(item.call_id)) is not None:
            message["name"] = name
        self._made.append(message)


def _call(item: ResponseInputCall) -> dict[str, Any]:
    function = {"name": item.name, "arguments": arguments_for_template(item.arguments)}
    return {"id": item.call_id, "type": "function", "function": function}


def _text(content: str | Sequence[ResponsePart], place: str, between: str = "") -> str:
    if isinstance(content, str):
        return content
    texts = []
    for number, part in enumerate(content):
        if isinstance(part, ResponseOtherPart):
            what = "images are" if part.type == "input_image" else f"parts of type `{part.type[:32]}` are"
            where = f"{place}[{number}]"
            raise ValidationError(f"`{where}`: {what} not supported: send text only", param=where)
        texts.append(part.text)
    return between.join(texts)


def _tools(body: ResponsesRequest, ignored: list[str]) -> list[Tool]:
    tools: list[Tool] = []
    for number, tool in enumerate(body.tools):
        if isinstance(tool, ResponseFunctionTool):
            place = f"tools[{number}]"
            tools.append(Tool(tool.name, tool.description, tool.parameters, tool.strict, place, ".parameters"))
        else:
            ignored.append(f"tools.{number}")
    return tools


def _choice(body: ResponsesRequest, tools: list[Tool]) -> tuple[Choice, list[Tool]]:
    """How tools are chosen, and from which."""
    choice = body.tool_choice
    if isinstance(choice, str):
        return choice, tools
    if choice.type == "allowed_tools":
        names = {tool.get("name") for tool in choice.tools}
        return choice.mode, [tool for tool in tools if tool.name in names]
    if choice.type != "function":
        raise ToolError(f"`tool_choice` of type `{choice.type[:32]}` is not supported", param="tool_choice")
    if choice.name is None:
        raise ToolError("`tool_choice` needs the `name` of the function", param="tool_choice")
    return NamedTool(choice.name), tools
