"""Conversations to prompts, byte for byte as transformers' `apply_chat_template` renders them.

Owns where templates come from, which one is taken and what it sees. Does not own the environment it
runs in (`template_sandbox`), the thread and time limit (`bounded`) nor tokenising. Called by `service.render_chat`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import Template

from tgi.errors import TemplateError, ValidationError
from tgi.json_files import read_json
from tgi.serving.template_sandbox import sandbox

MAX_RENDERED_CHARACTERS = 16_000_000
RESERVED_ARGUMENTS = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "max_length",
        "messages",
        "padding",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tools",
        "truncation",
    }
)
"""Names a request may not set through `chat_template_kwargs`."""
_CONTINUE = "CONTINUE_FINAL_MESSAGE_TAG "
_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")


class ChatTemplate:
    """The templates of a checkpoint. Rendering keeps no state, so threads may share it."""

    def __init__(self, sources: Mapping[str, str], special_tokens: Mapping[str, str] | None = None) -> None:
        """`sources`: name -> template text ("default", "tool_use"); `special_tokens`: bos_token etc."""
        self._sources = dict(sources)
        self._special_tokens = dict(special_tokens or {})
        self._environment = sandbox()
        self._compiled: dict[str, Template] = {}

    @classmethod
    def load(
        cls,
        model_path: str | Path,
        special_tokens: Mapping[str, str] | None = None,
        tokenizer_config_path: str | Path | None = None,
    ) -> ChatTemplate:
        """Find the templates of a directory.

        The first of: the given tokenizer config, chat_template.jinja with additional_chat_templates/,
        chat_template.json, tokenizer_config.json. Raises ModelError for unreadable files.
        """
        path = Path(model_path)
        for sources in (
            _named(read_json(Path(tokenizer_config_path))) if tokenizer_config_path else {},
            _jinja_files(path),
            _named(read_json(path / "chat_template.json")),
            _named(read_json(path / "tokenizer_config.json")),
        ):
            if sources:
                return cls(sources, special_tokens)
        return cls({}, special_tokens)

    def __bool__(self) -> bool:
        """Whether there is any template."""
        return bool(self._sources)

    def source(self, with_tools: bool = False) -> str:
        """The text of the template that such a request uses. Raises TemplateError when there is none."""
        if not self._sources:
            raise TemplateError("template not found")
        name = "tool_use" if with_tools and "tool_use" in self._sources else "default"
        if name not in self._sources:
            raise TemplateError(f"template not found: there is no default among {', '.join(sorted(self._sources))}")
        return self._sources[name]

    def render(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt of a conversation. `arguments`: further template variables (`chat_template_kwargs`).

        With `continue_final_message` the prompt ends within the last message. Raises TemplateError
        with the template's own message, ValidationError for a reserved argument.
        """
        arguments = arguments or {}
        for name in sorted(RESERVED_ARGUMENTS & arguments.keys()):
            raise ValidationError(f"`chat_template_kwargs` cannot set `{name}`", param="chat_template_kwargs")
        source = self.source(with_tools=tools is not None)
        chat = [_with_reasoning({k: v for k, v in message.items() if v is not None}) for message in messages]
        final = _tag_final_message(chat, source) if continue_final_message else None
        variables = {
            **self._special_tokens,
            **arguments,
            "messages": chat,
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt and not continue_final_message,
        }
        try:
            text = _bounded_render(self._compile(source), variables)
        except TemplateError:
            raise
        except Exception as error:  # a template is foreign code and may fail in any way
            raise TemplateError(_reason(error)) from error
        return text if final is None else _cut_at_tag(text, final)

    def _compile(self, source: str) -> Template:
        template = self._compiled.get(source)
        if template is None:
            template = self._compiled[source] = self._environment.from_string(source)
        return template


def continues(messages: list[dict[str, Any]]) -> bool:
    """Whether the conversation ends in an assistant's text, which TGI has the model continue."""
    last = messages[-1] if messages else {}
    return last.get("role") == "assistant" and bool(last.get("content")) and not last.get("tool_calls")


def _reason(error: Exception) -> str:
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"syntax error: {error.message} (in template, line {error.lineno})"
    return str(error) or type(error).__name__


def _named(config: Mapping[str, Any]) -> dict[str, str]:
    """`chat_template` of a config: one text, or a list of {name, template}."""
    value = config.get("chat_template")
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list):
        return {entry["name"]: entry["template"] for entry in value if {"name", "template"} <= entry.keys()}
    return {}


def _jinja_files(path: Path) -> dict[str, str]:
    files = {file.stem: file for file in sorted((path / "additional_chat_templates").glob("*.jinja"))}
    if (path / "chat_template.jinja").is_file():
        files["default"] = path / "chat_template.jinja"
    return {name: file.read_text(encoding="utf-8") for name, file in files.items()}


def _bounded_render(template: Template, variables: dict[str, Any]) -> str:
    pieces: list[str] = []
    length = 0
    for piece in template.generate(variables):
        pieces.append(piece)
        length += len(piece)
        if length > MAX_RENDERED_CHARACTERS:
            raise TemplateError(f"the template's output exceeds {MAX_RENDERED_CHARACTERS} characters")
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
