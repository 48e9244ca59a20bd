"""From Anthropic's bodies to a conversation as templates see it.

Owns what each block becomes, and which of them cannot. Does not own the types (`types`) nor templates (`serving`).
"""

from __future__ import annotations

from typing import Any

from tgi.api.anthropic.types import (
    Block,
    CountRequest,
    CustomToolParam,
    MessageParam,
    MessagesRequest,
    OtherBlockParam,
    RedactedThinkingBlockParam,
    TextBlockParam,
    ThinkingBlockParam,
    ThinkingParam,
    ToolResultBlockParam,
    ToolUseBlockParam,
)
from tgi.errors import MalformedRequestError, ValidationError
from tgi.messages import Grammar
from tgi.serving.chat.conversation import Choice, Conversation, NamedTool, Tool
from tgi.serving.chat.plan import MOST_THINKING
from tgi.serving.grammars.build import response_grammar

FORMAT = "output_config.format"
BILLING = "x-anthropic-billing-header:"
"""Begins a text that Claude Code puts first in every request, with a number that is never the same: in the prompt it
would keep all requests from sharing a prefix."""
BETWEEN_TEXTS = "\n\n"
"""Blocks are paragraphs."""


def conversation_of(body: CountRequest, ignored: list[str]) -> Conversation:
    """What the body means. Names without effect go to `ignored`.

    Raises ValidationError and MalformedRequestError.
    """
    if not body.messages:
        raise ValidationError("`messages` cannot be empty", param="messages")
    names: dict[str, str] = {}
    messages = _system(body, ignored)
    for number, message in enumerate(body.messages):
        messages += _message(message, f"messages[{number}].content", names, ignored)
    tools = _tools(body, ignored)
    return Conversation(
        messages=messages,
        tools=tools,
        choice=_choice(body),
        parallel=body.tool_choice is None or not body.tool_choice.disable_parallel_tool_use,
        reasoning_effort=_effort(body),
        max_thinking_tokens=_budget(body.thinking),
        grammar=_grammar(body, ignored),
    )


def _system(body: CountRequest, ignored: list[str]) -> list[dict[str, Any]]:
    blocks = [body.system] if isinstance(body.system, str) else [block.text for block in body.system or ()]
    kept = [_without_billing(text) for text in blocks]
    if kept != blocks:
        ignored.append("system.x-anthropic-billing-header")
    text = BETWEEN_TEXTS.join(one for one in kept if one)
    return [{"role": "system", "content": text}] if text else []


def _without_billing(text: str) -> str:
    """The text without the lines of that kind at its beginning."""
    while text.lstrip()[: len(BILLING)].lower() == BILLING:
        text = text.lstrip().partition("\n")[2].lstrip("\n")
    return text


def _message(message: MessageParam, place: str, names: dict[str, str], ignored: list[str]) -> list[dict[str, Any]]:
    """The messages of a template that a message becomes: results of tools are messages of their own."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    if message.role == "assistant":
        return [_assistant(message.content, place, names, ignored)]
    made: list[dict[str, Any]] = []
    texts: list[str] = []
    for number, block in enumerate(message.content):
        if isinstance(block, ToolResultBlockParam):
            _flush(made, message.role, texts)
            made.append(_result(block, f"{place}[{number}]", names))
        elif isinstance(block, TextBlockParam):
            texts.append(block.text)
        else:
            raise _misplaced(block, f"{place}[{number}]", message.role)
    if texts or not made:
        _flush(made, message.role, texts, even_empty=not made)
    return made


def _flush(made: list[dict[str, Any]], role: str, texts: list[str], *, even_empty: bool = False) -> None:
    if texts or even_empty:
        made.append({"role": role, "content": BETWEEN_TEXTS.join(texts)})
        texts.clear()


def _assistant(blocks: list[Block], place: str, names: dict[str, str], ignored: list[str]) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        if isinstance(block, TextBlockParam):
            texts.append(block.text)
        elif isinstance(block, ThinkingBlockParam):
            thoughts.append(block.thinking)
        elif isinstance(block, RedactedThinkingBlockParam):
            ignored.append(f"{place.replace('[', '.').replace(']', '')}.{number}")
        elif isinstance(block, ToolUseBlockParam):
            names[block.id] = block.name
            function = {"name": block.name, "arguments": block.input}
            calls.append({"id": block.id, "type": "function", "function": function})
        else:
            raise _misplaced(block, f"{place}[{number}]", "assistant")
    message: dict[str, Any] = {"role": "assistant", "content": BETWEEN_TEXTS.join(texts)}
    if thoughts:
        message["reasoning_content"] = BETWEEN_TEXTS.join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _result(block: ToolResultBlockParam, place: str, names: dict[str, str]) -> dict[str, Any]:
    texts = [block.content] if isinstance(block.content, str) else []
    for number, part in enumerate(block.content or () if not texts else ()):
        if not isinstance(part, TextBlockParam):
            raise _unsupported(part.type, f"{place}.content[{number}]")  # type: ignore[union-attr]
        texts.append(part.text)
    text = BETWEEN_TEXTS.join(texts)
    message = {
        "role": "tool",
        "tool_call_id": block.tool_use_id,
        "content": f"Error: {text}" if block.is_error else text,
    }
    if (name := names.get(block.tool_use_id)) is not None:
        message["name"] = name
    return message


def _misplaced(block: Block, place: str, role: str) -> ValidationError:
    if isinstance(block, OtherBlockParam):
        return _unsupported(block.type, place)
    return ValidationError(f"`{place}`: a `{block.type}` block cannot be in a message of role `{role}`", param=place)


def _unsupported(kind: str, place: str) -> ValidationError:
    what = "images are" if kind == "image" else f"blocks of type `{kind[:32]}` are"
    return ValidationError(f"`{place}`: {what} not supported: send text only", param=place)


def _tools(body: CountRequest, ignored: list[str]) -> list[Tool]:
    tools: list[Tool] = []
    for number, tool in enumerate(body.tools):
        if isinstance(tool, CustomToolParam):
            place = f"tools[{number}]"
            tools.append(Tool(tool.name, tool.description, tool.input_schema, tool.strict, place, ".input_schema"))
        else:
            ignored.append(f"tools.{number}")
    return tools


def _choice(body: CountRequest) -> Choice:
    choice = body.tool_choice
    if choice is None:
        return "auto"
    if choice.type != "tool":
        return "required" if choice.type == "any" else choice.type
    if choice.name is None:
        raise MalformedRequestError(
            "Failed to deserialize the JSON body into the target type: tool_choice: missing field `name`",
            param="tool_choice",
        )
    return NamedTool(choice.name)


def _grammar(body: CountRequest, ignored: list[str]) -> Grammar | None:
    form = None if body.output_config is None else body.output_config.format
    if form is None:
        return None
    if form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict):
        raise ValidationError(f"`{FORMAT}` must be of type `json_schema`, with a `schema`", param=FORMAT)
    return response_grammar(form, FORMAT, ignored)


def _effort(body: CountRequest) -> str | None:
    """Thinking that is turned off is no effort at all."""
    if body.thinking is not None and body.thinking.type == "disabled":
        return "none"
    return body.output_config.effort if body.output_config is not None else None


def _budget(thinking: ThinkingParam | None) -> int | None:
    return thinking.budget_tokens if thinking is not None and thinking.type == "enabled" else None


def check_budget(body: MessagesRequest) -> None:
    """Raises ValidationError where thinking could take all tokens."""
    budget = _budget(body.thinking)
    if body.thinking is not None and body.thinking.type == "enabled" and budget is None:
        raise ValidationError("`thinking.budget_tokens` is missing", param="thinking.budget_tokens")
    if budget is not None and budget > MOST_THINKING:
        raise ValidationError(
            f"`thinking.budget_tokens` must be <= {MOST_THINKING}. Given: {budget}", param="thinking.budget_tokens"
        )
    if budget is not None and budget >= body.max_tokens:
        raise ValidationError(
            f"`max_tokens` must be greater than `thinking.budget_tokens`. Given: {body.max_tokens} and {budget}",
            param="thinking.budget_tokens",
        )
