"""The body of `/v1/responses`.

Owns its names and types. What they mean is `convert`'s.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from tgi.api.responses.items import ResponseInputItem
from tgi.api.state import Api
from tgi.api.wire.fields import F32, I32, U32, Items, RequestModel, count, json_kind
from tgi.errors import ValidationError
from tgi.serving.tools.checks import check_tool_count

LOGPROBS = "message.output_text.logprobs"
"""The value of `include` that has an effect."""
MOST_METADATA, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512
"""Pairs of `metadata`, and characters, as at OpenAI."""
NOT_HERE = {
    "background": "responses are not made in the background: send it without, or false",
    "conversation": "conversations are not kept: send `previous_response_id` or all of the input",
    "prompt": "prompts are not kept: send their text as `instructions` or `input`",
}
"""Fields that would make another request of it -> what to do."""

ResponseInput = Annotated[
    Annotated[str, Tag("string")] | Annotated[Items[ResponseInputItem], Tag("array")],
    Discriminator(json_kind, custom_error_type="input", custom_error_message="expected a string or an array of items"),
]


class ResponseFunctionTool(RequestModel):
    """A function that the model may call."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON schema of the arguments.")
    strict: bool = Field(False, description="The arguments must fit the schema.")


class ResponseOtherTool(RequestModel):
    """A tool that OpenAI's servers run or define; noted in `x-tgi-ignored`."""

    type: str


def _tool_kind(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    return "function" if value.get("type") == "function" else "other"


ResponseTool = Annotated[
    Annotated[ResponseFunctionTool, Tag("function")] | Annotated[ResponseOtherTool, Tag("other")],
    Discriminator(_tool_kind, custom_error_type="tool", custom_error_message="expected a tool, a JSON object"),
]


class ResponseChoice(RequestModel):
    """One tool, or those that may be called."""

    type: str
    name: str | None = Field(None, description="Of the function to call, with `type` `function`.")
    mode: Literal["auto", "required"] = "auto"
    tools: list[dict[str, Any]] = Field([], description="Those allowed, with `type` `allowed_tools`.")


ResponseToolChoice = Annotated[
    Annotated[Literal["auto", "none", "required"], Tag("string")] | Annotated[ResponseChoice, Tag("object")],
    Discriminator(json_kind, custom_error_type="choice", custom_error_message="expected a string or an object"),
]


class ResponseTextFormat(RequestModel):
    """The form of the answer."""

    format: dict[str, Any] | None = Field(None, description="`text`, `json_object` or `json_schema` with its `schema`.")


class ResponseReasoningConfig(RequestModel):
    """How the model thinks before it answers."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = Field(
        None, description="Give the reasoning as a summary, which is all of it."
    )


class ResponsesRequest(RequestModel):
    """What to answer, and how."""

    model: str | None = Field(None, description="Name of the model; any name is served by the one model there is.")
    input: ResponseInput | None = Field(None, examples=["What is Deep Learning?"])
    instructions: str | None = Field(None, description="What the model is told first.")
    tools: Items[ResponseTool] = Field([])
    tool_choice: ResponseToolChoice = "auto"
    parallel_tool_calls: bool = True
    text: ResponseTextFormat | None = None
    reasoning: ResponseReasoningConfig | None = None
    max_output_tokens: U32 | None = Field(
        None, description="Default: the server's, which `/info` tells; none there: up to the end of the context."
    )
    temperature: F32 | None = Field(None, description="0 is greedy; default 1.", examples=[1.0])
    top_p: F32 | None = Field(None, description="0 and 1 are off.", examples=[0.95])
    top_k: I32 | None = Field(None, description="Keep the k most likely tokens; 0 and -1 are off.")
    frequency_penalty: F32 | None = Field(None, description="-2 to 2, for each time a token was generated.")
    presence_penalty: F32 | None = Field(None, description="-2 to 2, once a token was generated.")
    include: list[str] = Field([], description=f"`{LOGPROBS}`: log-probabilities of the text's tokens.")
    top_logprobs: U32 | None = Field(
        None, description="Number of alternatives to list for each token; needs that `include`."
    )
    stream: bool = False
    store: bool = Field(True, description="Keep the response for a while, so that the next may go on from it.")
    previous_response_id: str | None = Field(None, description="The stored response to go on from.")
    truncation: Literal["auto", "disabled"] = Field(
        "disabled", description="`auto`: leave out the oldest items of the input until the rest fits."
    )
    metadata: dict[str, str] = Field({}, description="At most 16 pairs, returned with the response.")
    user: str | None = Field(None, description="Returned with the response, as are the next two.")
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    background: bool = False
    conversation: Any = None
    prompt: Any = None

    @classmethod
    def check_counts(cls, data: Any, api: Api) -> None:
        check_tool_count(count(data, "tools"))

    @property
    def wants_logprobs(self) -> bool:
        return LOGPROBS in self.include

    def without_effect(self) -> list[str]:
        """An `include` of other things, and alternatives of log-probabilities that nobody asks for."""
        ignored = ["include"] if any(value != LOGPROBS for value in self.include) else []
        return [*ignored, "top_logprobs"] if self.top_logprobs and not self.wants_logprobs else ignored

    def check(self) -> None:
        """Raises ValidationError for what is missing, too large or not to be had here."""
        for name, remedy in NOT_HERE.items():
            if getattr(self, name):
                raise ValidationError(f"`{name}` is not supported: {remedy}", param=name)
        if self.input is None:
            raise ValidationError("`input` is missing", param="input")
        if not self.input and self.instructions is None:
            raise ValidationError("`input` cannot be empty", param="input")
        if len(self.metadata) > MOST_METADATA:
            raise ValidationError(f"`metadata` supports up to {MOST_METADATA} pairs", param="metadata")
        if any(len(key) > LONGEST_KEY or len(value) > LONGEST_VALUE for key, value in self.metadata.items()):
            raise ValidationError(
                f"`metadata` supports keys of up to {LONGEST_KEY} and values of up to {LONGEST_VALUE} characters",
                param="metadata",
            )
