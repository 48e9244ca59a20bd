"""What the routes that answer conversations have in common: from a conversation to a prepared request.

Owns no body and no answer: OpenAI's chat and Responses, Anthropic's messages and SageMaker's route bring theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tgi.api.server.call import Call
from tgi.serving.chat.conversation import Conversation
from tgi.serving.chat.parts import Reader
from tgi.serving.chat.plan import ChatPlan, plan_chat
from tgi.serving.dialect import Dialect
from tgi.serving.types import Prepared, SamplingParams


@dataclass(frozen=True, slots=True)
class PreparedChat:
    """A conversation, ready to be answered."""

    prepared: Prepared
    plan: ChatPlan

    def reader(self) -> Reader:
        """A reader of one sample's text: feed it the text of each `Delta`, or that of a `Completion`."""
        return self.plan.reader()


async def prepare_chat(
    call: Call, conversation: Conversation, params: SamplingParams, dialect: Dialect, stream: bool
) -> PreparedChat:
    """Template, tokens and every check. Raises TemplateError, ToolError, ValidationError and as `Call.prepare`."""
    if conversation.grammar is None and params.grammar is not None:
        conversation = replace(conversation, grammar=params.grammar)
    plan = await plan_chat(call.api.service, conversation)
    call.ignored += plan.ignored
    call.characters += len(plan.prompt)
    params, dialect = plan.sampling(params), plan.dialect(dialect)
    prepared = await call.prepare(plan.prompt, params, dialect, add_special_tokens=False, stream=stream)
    return PreparedChat(prepared, plan)
