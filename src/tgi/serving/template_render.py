"""One conversation to one prompt, byte for byte as transformers' `apply_chat_template` renders it.

Owns what a template sees, the bound of its output and where a continued message is cut. Does not own
the environment (`template_sandbox`). Runs in the process of `template_process`, since templates are foreign code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jinja2
from jinja2 import Template, nodes

from tgi.errors import TemplateError
from tgi.serving.template_sandbox import sandbox
from tgi.serving.template_wants import Wants, shaped

MAX_RENDERED_CHARACTERS = 16_000_000
MAX_REASON_CHARACTERS = 4_096
_CONTINUE = "CONTINUE_FINAL_MESSAGE_TAG "
_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")


class Renderer:
    """Templates, compiled when they are first used."""

    def __init__(self, sources: Mapping[str, str], special_tokens: Mapping[str, str]) -> None:
        """`sources`: name -> text of a template; `special_tokens`: bos_token etc."""
        self.sources = dict(sources)
        self._environment = sandbox()
        self._special_tokens = dict(special_tokens)
        self._compiled: dict[str, Template] = {}

    def render(
        self,
        name: str,
        messages: list[dict[str, Any]],
        *,
        wants: Wants | None = None,
        tools: Any = None,
        documents: Any = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        arguments: Mapping[str, Any] | None = None,
        most: int = MAX_RENDERED_CHARACTERS,
    ) -> str:
        """The prompt, of at most `most` characters; see `ChatTemplate.render`. Without `wants` messages stay as sent.

        Raises TemplateError, and MemoryError when the process has too little.
        """
        chat = messages if wants is None else shaped(messages, wants)
        chat = [
            _with_reasoning({key: value for key, value in message.items() if value is not None}) for message in chat
        ]
        final = _tag_final_message(chat, self.sources[name]) if continue_final_message else None
        variables = {
            **self._special_tokens,
            **(arguments or {}),
            "messages": chat,
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt and not continue_final_message,
        }
        with _as_template_error():
            text = _bounded_render(self.compile(name), variables, most)
        return text if final is None else _cut_at_tag(text, final)

    def compile(self, name: str) -> Template:
        """The compiled template. Raises TemplateError."""
        template = self._compiled.get(name)
        if template is None:
            with _as_template_error():
                template = self._compiled[name] = self._environment.from_string(self.sources[name])
        return template

    def parse(self, name: str) -> nodes.Template:
        """The template's syntax tree. Raises TemplateError."""
        with _as_template_error():
            return self._environment.parse(self.sources[name])


@contextmanager
def _as_template_error() -> Iterator[None]:
    """A template is foreign code and may fail in any way; lack of memory is told apart."""
    try:
        yield
    except (TemplateError, MemoryError):
        raise
    except Exception as error:
        raise TemplateError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """What the exception says, in bounded length."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        text = f"syntax error: {error.message} (in template, line {error.lineno})"
    else:
        text = str(error) or type(error).__name__
    return text if len(text) <= MAX_REASON_CHARACTERS else text[:MAX_REASON_CHARACTERS] + "..."


def _bounded_render(template: Template, variables: dict[str, Any], most: int) -> str:
    pieces: list[str] = []
    length = 0
    for piece in template.generate(variables):
        pieces.append(piece)
        length += len(piece)
        if length > most:
            raise TemplateError(f"the template's output exceeds {most} characters")
    return "".join(pieces)


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Models read a message's reasoning under different names: give it under the usual two."""
    reasoning = next((message[name] for name in _REASONING_FIELDS if message.get(name) is not None), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _tag_final_message(chat: list[dict[str, Any]], source: str) -> str:
    """Mark where the last message ends, so that the prompt can be cut there; gives its text."""
    if not chat or chat[-1].get("content") is None:
        raise TemplateError("there is no final message with content to continue")
    if "content" not in source:
        raise TemplateError("the template does not show the content of messages, so none can be continued")
    last = chat[-1]
    if isinstance(last["content"], str):
        text: str = last["content"]
        last["content"] = text + _CONTINUE
        return text
    parts = [dict(part) for part in last["content"]]
    for part in reversed(parts):
        if "text" in part:
            text = part["text"]
            part["text"] = text + _CONTINUE
            last["content"] = parts
            return text
    raise TemplateError("the final message has no text to continue")


def _cut_at_tag(text: str, final: str) -> str:
    tag = _CONTINUE.strip()
    if final.strip() not in text or tag not in text:
        raise TemplateError("the final message does not appear in the rendered chat, so it cannot be continued")
    end = text.rindex(tag)
    # A template that strips messages has taken the tag's own space: then the message's is unwanted, too.
    return text[:end] if text.startswith(_CONTINUE, end) else text[:end].rstrip()
