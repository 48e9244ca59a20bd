"""From a conversation to a prompt, and how the answer is to be read.

Owns what becomes of tools and reasoning in the prompt. Does not own templates (`serving.chat_template`) nor HTTP:
`LLM.chat` uses it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tgi.messages import Grammar
from tgi.serving.chat.conversation import Conversation
from tgi.serving.chat.parts import PlainReader, Reader
from tgi.serving.dialect import Dialect
from tgi.serving.service import Service
from tgi.serving.types import SamplingParams


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

    def sampling(self, params: SamplingParams) -> SamplingParams:
        return params if self.grammar is None else replace(params, grammar=self.grammar)

    def dialect(self, dialect: Dialect) -> Dialect:
        return replace(dialect, shown_special=self.shown) if self.shown else dialect


async def plan_chat(service: Service, conversation: Conversation) -> ChatPlan:
    """Raises TemplateError, ToolError, ValidationError, and OverloadedError when no template process is free."""
    prompt = await service.render_chat(
        conversation.messages,
        arguments=conversation.template_arguments,
        add_generation_prompt=conversation.add_generation_prompt,
        continue_final_message=conversation.continue_final_message,
    )
    return ChatPlan(prompt, conversation.grammar, PlainReader)
