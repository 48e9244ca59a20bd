"""A conversation as every dialect means it: messages, tools and how to go on.

Plain data, made by the routes and by `LLM.chat`, read by `serving.chat.plan`. No HTTP, no limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from tgi.messages import Grammar


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    """JSON schema of the arguments; None: there are none."""
    strict: bool = False
    """Whether the arguments must fit the schema also where the model is free to call or not."""
    place: str = ""
    """Where it is in the request, for errors; empty: `tools.` and its number."""
    schema_at: str = ""
    """Where its schema is below that."""

    def for_template(self) -> dict[str, Any]:
        """As transformers has it; schemas pass as they are."""
        function: dict[str, Any] = {"name": self.name}
        if self.description is not None:
            function["description"] = self.description
        function["parameters"] = dict(self.parameters or {"type": "object", "properties": {}})
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class NamedTool:
    """The one tool that must be called."""

    name: str


Choice: TypeAlias = Literal["auto", "none", "required"] | NamedTool


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What the model is to answer."""

    messages: list[dict[str, Any]]
    """As a template sees them: role, content, and where they are given tool_calls (arguments as objects),
    tool_call_id, name, reasoning_content."""
    tools: Sequence[Tool] = ()
    choice: Choice = "auto"
    parallel: bool = True
    """Whether one answer may hold several calls."""
    tool_prompt: str | None = None
    """Words about the tools in place of our own (TGI)."""
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further variables of the template (`chat_template_kwargs`)."""
    add_generation_prompt: bool = True
    continue_final_message: bool | None = None
    """None: where the last message is the assistant's."""
    reasoning_effort: str | None = None
    max_thinking_tokens: int | None = None
    """The reasoning is ended after this many tokens; None: by the model."""
    grammar: Grammar | None = None
    """What the answer must look like, calls of tools and reasoning aside."""
