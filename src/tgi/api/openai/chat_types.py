"""Bodies of `/v1/chat/completions` and `/chat_tokenize`.

Owns their names and types, and what a chat template gets to see of a message. Does not own the
template (`serving.chat_template`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from tgi.api.openai.grammar_fields import GrammarFields
from tgi.api.openai.tool_types import ToolChoice, ToolDefinitions, tools_of
from tgi.api.openai.types import OpenAIRequest
from tgi.api.state import Api
from tgi.api.wire.fields import U32, Items, RequestModel, count, json_kind
from tgi.errors import MalformedRequestError, ValidationError
from tgi.serving.chat.conversation import Conversation
from tgi.serving.chat.openai_form import arguments_for_template, choice_of
from tgi.serving.generation_defaults import GenerationDefaults
from tgi.serving.tools.checks import check_tool_count
from tgi.serving.types import SamplingParams

WRONG = "Failed to deserialize the JSON body into the target type: "


class TextChunk(RequestModel):
    """A piece of text."""

    type: Literal["text"]
    text: str


class Url(RequestModel):
    """Where an image is."""

    url: str


class ImageChunk(RequestModel):
    """An image; this version refuses it."""

    type: Literal["image_url"]
    image_url: Url


MessageChunk = Annotated[TextChunk | ImageChunk, Field(discriminator="type")]
MessageContent = Annotated[
    Annotated[str, Tag("string")] | Annotated[Items[MessageChunk], Tag("array")],
    Discriminator(
        json_kind,
        custom_error_type="content",
        custom_error_message="expected a string or an array of content parts",
    ),
]


class FunctionDefinition(RequestModel):
    """A function with its arguments, given as an object or as JSON text."""

    name: str
    description: str | None = None
    arguments: Any = None
    parameters: Any = None


class ToolCall(RequestModel):
    """A call that the assistant made earlier."""

    id: str
    type: str = "function"
    function: FunctionDefinition

    def for_template(self) -> dict[str, Any]:
        """As transformers has it: arguments as an object where they are one."""
        function = self.function
        arguments = function.arguments if function.arguments is not None else function.parameters
        seen = {"name": function.name, "arguments": arguments_for_template(arguments)}
        return {"id": self.id, "type": self.type, "function": seen}


class Message(RequestModel):
    """One turn of a conversation."""

    role: str = Field(examples=["user"])
    content: MessageContent | None = Field(None, examples=["What is Deep Learning?"])
    name: str | None = None
    tool_calls: Items[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """The same under another name."""

    def for_template(self) -> dict[str, Any]:
        """What a template sees; content is a string or a list, as sent. Raises ValidationError for images."""
        if self.content is None and self.tool_calls is None and self.role != "assistant":
            raise MalformedRequestError(f"{WRONG}messages: missing field `content`", param="messages")
        seen: dict[str, Any] = {"role": self.role, "content": self._content()}
        reasoning = self.reasoning if self.reasoning_content is None else self.reasoning_content
        for field, value in (
            ("name", self.name),
            ("tool_call_id", self.tool_call_id),
            ("reasoning_content", reasoning),
        ):
            if value is not None:
                seen[field] = value
        if self.tool_calls:
            seen["tool_calls"] = [call.for_template() for call in self.tool_calls]
        return seen

    def _content(self) -> str | list[dict[str, str]]:
        if not isinstance(self.content, list):
            return self.content or ""
        parts = []
        for chunk in self.content:
            if isinstance(chunk, ImageChunk):
                raise ValidationError("images are not supported yet: send text only", param="messages")
            parts.append({"type": chunk.type, "text": chunk.text})
        return parts


PROMPT_FIELDS = frozenset(
    {
        "model",
        "messages",
        "tools",
        "tool_choice",
        "tool_prompt",
        *GrammarFields.model_fields,
        "chat_template_kwargs",
        "add_generation_prompt",
        "continue_final_message",
        "reasoning_effort",
        "parallel_tool_calls",
        "max_thinking_tokens",
    }
)
"""What the prompt is made of, and what is refused or noted when it is made."""


class ChatRequest(OpenAIRequest):
    """A conversation and how to go on with it."""

    messages: Items[Message] = Field(examples=[[{"role": "user", "content": "What is Deep Learning?"}]])
    logprobs: bool | None = Field(None, description="Return log-probabilities of the generated tokens.")
    top_logprobs: U32 | None = Field(
        None, description="Number of alternatives to list for each token; needs `logprobs`."
    )
    tools: ToolDefinitions | None = Field(None, description="Functions that the model may call.")
    tool_choice: ToolChoice | None = Field(
        None, description="`auto` (default), `none`, `required`, or the function that must be called."
    )
    parallel_tool_calls: bool = Field(True, description="Whether one answer may hold several calls.")
    tool_prompt: str | None = Field(None, description="Words about the tools, put after the last message (TGI).")
    reasoning_effort: str | None = Field(
        None, description="How much the model thinks, as its chat template has it: `none`, `low`, `medium`, `high`."
    )
    max_thinking_tokens: U32 | None = Field(
        None, description="Most tokens of the reasoning, which is then ended; default: up to the model."
    )
    chat_template: Any = Field(None, description="Refused: a template is code, which the operator chooses.")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="Variables for the chat template.")
    add_generation_prompt: bool = True
    continue_final_message: bool | None = Field(
        None, description="Continue the last message; default: when it is the assistant's."
    )

    def without_prompt(self) -> set[str]:
        """Names of given fields that do not bear on the prompt."""
        return self.model_fields_set - PROMPT_FIELDS

    def chat_sampling(self, ignored: list[str], defaults: GenerationDefaults) -> SamplingParams:
        """In the words of `serving`."""
        if self.top_logprobs and not self.logprobs:
            ignored.append("top_logprobs")
        return self.sampling(
            ignored,
            defaults,
            top_n_tokens=self.top_logprobs,
            details=True,
        )

    @classmethod
    def check_counts(cls, data: Any, api: Api) -> None:
        super().check_counts(data, api)
        unused = isinstance(data, dict) and data.get("tool_choice") == "none"
        check_tool_count(0 if unused else count(data, "tools"))

    def conversation(self, ignored: list[str]) -> Conversation:
        """In the words of `serving`; raises as `Message.for_template`, and ToolError."""
        choice, form = choice_of(self.tool_choice), self.wanted_grammar(ignored)
        return Conversation(
            messages=[message.for_template() for message in self.messages],
            tools=() if choice == "none" else tools_of(self.tools),
            choice=choice,
            parallel=self.parallel_tool_calls,
            tool_prompt=self.tool_prompt,
            reasoning_effort=self.reasoning_effort,
            max_thinking_tokens=self.max_thinking_tokens,
            template_arguments=self.chat_template_kwargs or {},
            add_generation_prompt=self.add_generation_prompt,
            continue_final_message=self.continue_final_message,
            grammar=form and form[0],
        )

    def check_supported(self, ignored: list[str]) -> None:
        """Refuse by name what this version cannot do; raises ToolError or ValidationError."""
        if not self.messages:
            raise ValidationError("`messages` cannot be empty", param="messages")
        if self.chat_template is not None:
            raise ValidationError(
                "`chat_template` is not supported: the operator chooses it with --chat-template, and requests set its "
                "variables with `chat_template_kwargs`",
                param="chat_template",
            )
        if not self.tools or self.tool_choice == "none":
            ignored += [name for name in ("tool_prompt", "parallel_tool_calls") if name in self.model_fields_set]
