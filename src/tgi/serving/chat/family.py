"""How a model writes calls of tools and reasoning, found once from its checkpoint.

Owns what is looked at and in which order. The formats themselves are in `serving.tools` and `serving.reasoning`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from tgi.errors import ArgumentError, ModelError, TemplateError
from tgi.serving.chat_template import ChatTemplate
from tgi.serving.reasoning.tags import Tags, find_tags
from tgi.serving.tokenizer import Tokenizer
from tgi.serving.tools import registry
from tgi.serving.tools.format import Format
from tgi.serving.tools.formats.generic import GENERIC
from tgi.serving.tools.formats.gpt_oss import HARMONY
from tgi.serving.tools.response_template import Described, read_response_template

logger = logging.getLogger(__name__)

HARMONY_TAGS = Tags("<|channel|>analysis<|message|>", "<|end|>")
EFFORT_VARIABLES = ("reasoning_effort", "enable_thinking", "thinking")
SHORTEST_MARK = 3
"""Characters; a token that is shorter may be a part of any text."""
_PROBE = {"zq1key": "zq2value"}


@dataclass(frozen=True, slots=True)
class Family:
    """What is known of a model's answers."""

    format: Format
    found_by: str
    """What told the format: "flag", "response template", "chat template", or "none" where nothing did."""
    template_knows_tools: bool
    tags: Tags | None
    """Of reasoning; None: the model has none."""
    calls_as_text: bool
    """Whether the template wants arguments of earlier calls as JSON text and not as an object."""
    effort: tuple[str, ...]
    """Variables by which the template sets how much is thought."""
    special: dict[str, int]
    """Marks of calls and reasoning that are tokens of their own."""
    shown: frozenset[str]
    """Those of them that are special tokens, which texts leave out."""
    ends: frozenset[str]
    """Tokens that end an answer."""

    @property
    def channels(self) -> bool:
        """Whether reasoning and calls are messages in channels, so that any answer must be read."""
        return self.format is HARMONY


def find_family(
    template: ChatTemplate, tokenizer: Tokenizer, ends: frozenset[str], settings: Any = None, chosen: str | None = None
) -> Family:
    """`settings`: the `response_template` of tokenizer_config.json; `chosen`: `--tool-call-parser`."""
    source = template.source(with_tools=True) if template else ""
    described = _described(settings)
    format, found_by = _format(source, described, chosen)
    knows = registry.knows_tools(source) or format.places_if(source)
    if not knows and found_by == "chat template" and format is not HARMONY:
        format, found_by = GENERIC, "none"  # what the model is told of tools asks for JSON
    tags = (described and described.tags) or find_tags(source, frozenset(tokenizer.added.values()))
    if format is HARMONY:
        tags = HARMONY_TAGS
    marks = [*format.shape.markers, *(tags.markers if tags else ())]
    special = {
        text: id
        for id, text in tokenizer.added.items()
        if len(text) >= SHORTEST_MARK and not text.isalnum() and any(text in mark for mark in marks)
    }
    return Family(
        format,
        found_by,
        knows,
        tags,
        knows and _calls_as_text(template),
        tuple(name for name in EFFORT_VARIABLES if name in source),
        special,
        frozenset(text for text, id in special.items() if id in tokenizer.special_ids),
        ends,
    )


def _format(source: str, described: Described | None, chosen: str | None) -> tuple[Format, str]:
    if chosen is not None:
        try:
            return registry.by_name(chosen), "flag"
        except KeyError:
            raise ArgumentError(f"--tool-call-parser: {chosen!r} is none of {', '.join(registry.NAMES)}") from None
    if described is not None and described.format is not None:
        return described.format, "response template"
    format = registry.of_template(source)
    return format, "none" if format is GENERIC else "chat template"


def _described(settings: Any) -> Described | None:
    if settings is None:
        return None
    try:
        return read_response_template(settings)
    except ModelError as error:
        logger.warning("The tokenizer's response_template is not used: %s", error)
        return None


def _calls_as_text(template: ChatTemplate) -> bool:
    """Whether arguments that are given as an object fail, or show as Python writes them."""
    function = {"name": "zq", "arguments": _PROBE}
    call = {"id": "zq1234567", "type": "function", "function": function}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "zq"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "zq1234567", "name": "zq", "content": "zq"},
    ]
    tools = [{"type": "function", "function": {"name": "zq", "description": "zq", "parameters": {"type": "object"}}}]
    try:
        return "'zq1key'" in template.render(messages, tools=tools)
    except TemplateError:
        pass
    call["function"] = {**function, "arguments": '{"zq1key": "zq2value"}'}
    try:
        template.render(messages, tools=tools)
    except TemplateError:
        return False
    return True
