"""From a conversation to a prompt, the grammar of its answer, and how the answer is to be read.

Owns what becomes of tools and reasoning. Does not own templates (`serving.chat_template`), formats (`serving.tools`)
nor HTTP: `LLM.chat` uses it too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tgi.errors import ToolError, ValidationError
from tgi.messages import Grammar
from tgi.serving.chat.answer_rules import Wanted, answer_grammar, can_be_strict
from tgi.serving.chat.conversation import Conversation, NamedTool, Tool
from tgi.serving.chat.family import Family
from tgi.serving.chat.openai_form import message_of
from tgi.serving.chat.parts import PlainReader, Reader
from tgi.serving.chat.scanner import Scanner, Script, ScriptReader
from tgi.serving.chat_template import continues
from tgi.serving.dialect import Dialect
from tgi.serving.service import Service
from tgi.serving.tools.calls import Calls
from tgi.serving.tools.checks import check_tools
from tgi.serving.tools.formats.generic import described, plain_history
from tgi.serving.tools.rules import Rules
from tgi.serving.types import SamplingParams

MOST_THINKING = 1_000_000
"""Tokens of a thinking budget."""


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """A prompt and what is known of its answer."""

    prompt: str
    grammar: Grammar | None
    """What the whole answer must look like."""
    reader: Callable[[], Reader]
    """A reader for one sample."""
    shown: frozenset[str] = frozenset()
    """Special tokens that the reader must see."""
    reasons: bool = False
    """Whether the answer may hold reasoning."""
    ignored: Sequence[str] = ()
    """Fields that have no effect on this model."""
    blamed: str | None = None
    """The field that made the grammar; None: the request's own."""

    def sampling(self, params: SamplingParams) -> SamplingParams:
        return params if self.grammar is None else replace(params, grammar=self.grammar)

    def message(self, text: str) -> dict[str, Any]:
        """The assistant's message that an answer is, as OpenAI has it."""
        reader = self.reader()
        return message_of([*reader.feed(text), *reader.end()])

    def dialect(self, dialect: Dialect) -> Dialect:
        named = dialect if self.blamed is None else dialect.renamed({"grammar": self.blamed})
        return replace(named, shown_special=self.shown) if self.shown else named


def offered(conversation: Conversation) -> list[Tool]:
    """The tools that may be called. Raises ToolError for a name that is none of them, or if there are none to call."""
    choice = conversation.choice
    if choice == "none":
        return []
    if isinstance(choice, NamedTool):
        named = [tool for tool in conversation.tools if tool.name == choice.name]
        if not named:
            raise ToolError(f"Tool with name {choice.name[:64]} not found", param="tool_choice")
        return named
    if choice == "required" and not conversation.tools:
        raise ToolError("`tool_choice` needs `tools`", param="tool_choice")
    return list(conversation.tools)


async def plan_chat(service: Service, conversation: Conversation) -> ChatPlan:
    """Raises TemplateError, ToolError, ValidationError, and OverloadedError when no template process is free."""
    budget = conversation.max_thinking_tokens
    if budget is not None and not 0 <= budget <= MOST_THINKING:
        raise ValidationError(f"`max_thinking_tokens` must be >= 0 and <= {MOST_THINKING}", param="max_thinking_tokens")
    await asyncio.to_thread(check_tools, conversation.tools)
    tools = offered(conversation)
    family = await asyncio.to_thread(lambda: service.family)
    messages = await asyncio.to_thread(_messages, service, conversation, family, tools)
    arguments, ignored = _arguments(conversation, family)
    continued = conversation.continue_final_message
    continued = continues(messages) if continued is None else continued
    in_variable = tools and family.template_knows_tools and family.format.place is None
    prompt = await service.render_chat(
        messages,
        tools=[tool.for_template() for tool in tools] if in_variable else None,
        arguments=arguments,
        add_generation_prompt=conversation.add_generation_prompt,
        continue_final_message=continued,
    )
    begun = family.tags is not None and not family.channels and family.tags.begun(prompt, continued)
    if budget is not None and family.tags is None:
        ignored.append("max_thinking_tokens")
    wanted = _wanted(conversation, tools)
    if any(tool.strict for tool in tools) and not wanted.must_call and not can_be_strict(family.format.shape):
        ignored.append("tools.function.strict")
    rules = Rules(family.special, family.ends)
    grammar = await asyncio.to_thread(
        answer_grammar, wanted, rules, family, begun, lambda text: service.tokenizer.encode(text, False)
    )
    ignored += sorted(set(rules.left_out))
    reads = bool(tools) or family.channels or family.tags is not None
    return ChatPlan(
        prompt,
        grammar,
        (lambda: _reader(family, tools, begun, conversation.parallel)) if reads else PlainReader,
        family.shown if reads else frozenset(),
        family.tags is not None,
        ignored,
        _blamed(wanted),
    )


def _wanted(conversation: Conversation, tools: Sequence[Tool]) -> Wanted:
    must_call = conversation.choice == "required" or isinstance(conversation.choice, NamedTool)
    return Wanted(
        tools=tools,
        must_call=must_call,
        parallel=conversation.parallel and not isinstance(conversation.choice, NamedTool),
        strict=any(tool.strict for tool in tools),
        grammar=None if must_call else conversation.grammar,
        thinking=conversation.max_thinking_tokens,
    )


def _blamed(wanted: Wanted) -> str | None:
    if wanted.grammar is not None:
        return None
    return "tools" if wanted.tools and (wanted.must_call or wanted.strict) else "max_thinking_tokens"


def _reader(family: Family, tools: Sequence[Tool], begun: bool, parallel: bool) -> Reader:
    """Reasoning first, then text and calls."""

    def script(scan: Scanner) -> Script:
        if family.tags is not None and not family.channels:
            yield from family.tags.read(scan, begun)
        if tools or family.channels:
            yield from family.format.shape.read(scan, Calls(scan, tools, family.format.new_id, single=not parallel))

    return ScriptReader(script)


def _arguments(conversation: Conversation, family: Family) -> tuple[dict[str, Any], list[str]]:
    """Variables of the template, and the fields that set none."""
    arguments, effort = dict(conversation.template_arguments), conversation.reasoning_effort
    if effort is None:
        return arguments, []
    for name in family.effort:
        arguments.setdefault(name, effort if name == "reasoning_effort" else effort != "none")
    return arguments, [] if family.effort else ["reasoning_effort"]


def _messages(
    service: Service, conversation: Conversation, family: Family, tools: Sequence[Tool]
) -> list[dict[str, Any]]:
    """The messages in the words of this model's template."""
    messages = conversation.messages
    if not family.template_knows_tools:
        messages = plain_history(messages)
        if tools:
            system = "system" in service.chat_template.wants().forms
            return _told(messages, described(tools, conversation.tool_prompt), system)
    messages = [_with_calls(message, family) for message in messages]
    if tools and family.format.place is not None:
        messages = family.format.place(messages, tools)
    if tools and conversation.tool_prompt:
        messages = _appended(messages, f"\n---\n{conversation.tool_prompt}")
    return messages


def _with_calls(message: dict[str, Any], family: Family) -> dict[str, Any]:
    """Earlier calls with arguments and ids as the template takes them."""
    known = family.format.known_id or (lambda id: id)
    if isinstance(id := message.get("tool_call_id"), str):
        message = {**message, "tool_call_id": known(id)}
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        function = call["function"]
        arguments = {} if function.get("arguments") is None else function["arguments"]
        if family.calls_as_text and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        calls.append({**call, "id": known(call["id"]), "function": {**function, "arguments": arguments}})
    return {**message, "tool_calls": calls}


def _told(messages: list[dict[str, Any]], text: str, system: bool) -> list[dict[str, Any]]:
    """The messages with a text before all others: in the system's, or where there can be none in the user's first."""
    first = messages[0] if messages else {}
    if first.get("role") in ("system", "developer") or (not system and first.get("role") == "user"):
        own = first.get("content")
        joined = [*own, {"type": "text", "text": f"\n\n{text}"}] if isinstance(own, list) else f"{own}\n\n{text}"
        if first["role"] == "user":
            joined = [{"type": "text", "text": f"{text}\n\n"}, *own] if isinstance(own, list) else f"{text}\n\n{own}"
        return [{**first, "content": joined}, *messages[1:]]
    return [{"role": "system" if system else "user", "content": text}, *messages]


def _appended(messages: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """A text after the last message, as TGI puts `tool_prompt`."""
    last = messages[-1]
    own = last.get("content") or ""
    joined = [*own, {"type": "text", "text": text}] if isinstance(own, list) else own + text
    return [*messages[:-1], {**last, "content": joined}]
