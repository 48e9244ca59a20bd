"""The chat templates of a served model: which one is taken, what it wants, and the prompt it makes.

Owns the choice among named templates, the arguments a request may set and the sentences about what is wrong
with a template. Does not own where templates come from (`template_sources`), the processes that render
(`template_helper`) nor tokenising.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tgi.errors import TemplateError, ValidationError
from tgi.serving import template_sources
from tgi.serving.template_helper import HelperPool
from tgi.serving.template_wants import Wants

RENDER_SECONDS = 5.0
"""A template that takes longer is given up."""
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


class ChatTemplate:
    """The templates of a checkpoint. Threads may share it; its calls block."""

    def __init__(self, sources: Mapping[str, str], special_tokens: Mapping[str, str] | None = None) -> None:
        """`sources`: name -> template text ("default", "tool_use"); `special_tokens`: bos_token etc."""
        self._sources = dict(sources)
        self._helpers = HelperPool(self._sources, special_tokens or {})
        self._wants: dict[str, Wants] = {}

    @classmethod
    def load(
        cls,
        model_path: str | Path,
        special_tokens: Mapping[str, str] | None = None,
        tokenizer_config_path: str | Path | None = None,
        chosen: str | None = None,
    ) -> ChatTemplate:
        """Find the templates of a directory; see `template_sources.find`. Raises ModelError or ArgumentError."""
        config = Path(tokenizer_config_path) if tokenizer_config_path else None
        return cls(template_sources.find(Path(model_path), config, chosen), special_tokens)

    def __bool__(self) -> bool:
        """Whether there is a template for any conversation, be it one with tools only."""
        return not self._sources.keys().isdisjoint(("default", "tool_use"))

    def source(self, with_tools: bool = False) -> str:
        """The text of the template that such a request uses. Raises TemplateError when there is none."""
        return self._sources[self._name(with_tools)]

    def _name(self, with_tools: bool) -> str:
        name = "tool_use" if with_tools and "tool_use" in self._sources else "default"
        if name not in self._sources:
            raise TemplateError(f"template not found: {self._missing()}; {_remedy()}")
        return name

    def _missing(self) -> str:
        if self._sources:
            return f"there is no default among {', '.join(sorted(self._sources))}"
        return "the model has no chat template"

    def inspect(self) -> list[str]:
        """Find out what the templates want, with a process that is warm afterwards; what to warn about."""
        warnings = [
            f"The chat template {name!r} cannot be used: {why}" for name in self._sources if (why := self._probe(name))
        ]
        for name, wants in self._wants.items():
            if not wants.shows_user:
                warnings.append(f"The chat template {name!r} does not show what a user writes")
        if "default" not in self._sources:
            warnings.append(f"Chat requests will be answered with 422, since {self._missing()}: {_remedy()}")
        return warnings

    def wants(self, with_tools: bool = False, seconds: float = RENDER_SECONDS) -> Wants:
        """What the template of such a request wants. Raises TemplateError when there is none."""
        name = self._name(with_tools)
        if name not in self._wants:
            self._probe(name, seconds)
        return self._wants[name]

    def _probe(self, name: str, seconds: float = RENDER_SECONDS) -> str | None:
        """Fill `_wants`; gives why that failed."""
        try:
            self._wants[name] = Wants.of(json.loads(self._helpers.ask("probe", seconds, {"name": name})))
        except (TemplateError, ValueError) as error:
            self._wants[name] = Wants()
            return str(error)
        return None

    def render(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        arguments: Mapping[str, Any] | None = None,
        seconds: float = RENDER_SECONDS,
    ) -> str:
        """The prompt of a conversation. `arguments`: further template variables (`chat_template_kwargs`).

        Content is given as the template wants it, text or a list of parts, and the role `developer` is
        `system` for a template that does not name it. With `continue_final_message` the prompt ends
        within the last message. Raises TemplateError with the template's own message or when it takes more
        than `seconds`, ValidationError for a reserved argument.
        """
        arguments = arguments or {}
        for name in sorted(RESERVED_ARGUMENTS & arguments.keys()):
            raise ValidationError(f"`chat_template_kwargs` cannot set `{name}`", param="chat_template_kwargs")
        task = {
            "name": self._name(tools is not None),
            "wants": self.wants(tools is not None, seconds).plain(),
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            "arguments": dict(arguments),
        }
        return self._helpers.ask("render", seconds, task, messages)

    def close(self) -> None:
        """End the processes that render."""
        self._helpers.close()


def continues(messages: list[dict[str, Any]]) -> bool:
    """Whether the conversation ends in an assistant's text, which TGI has the model continue."""
    last = messages[-1] if messages else {}
    content = last.get("content")
    if isinstance(content, list):
        content = any(part.get("text") for part in content)
    return last.get("role") == "assistant" and bool(content) and not last.get("tool_calls")


def _remedy() -> str:
    names = ", ".join(template_sources.builtin_names())
    return f"start the server with --chat-template and a file, or the name of a built-in template ({names})"
