"""Types of the `/` routes: parameters, request, answer, stream event.

Field names are the server's; checks are those whose answer does not depend on the server's limits.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from text_generation.errors import ValidationError
from text_generation.types.base import Answer, Wire


class GrammarType(str, Enum):  # noqa: UP042 - StrEnum changes str()
    """What the value of a `Grammar` is."""

    Json = "json"
    Regex = "regex"
    JsonObject = "json_object"
    JsonSchema = "json_schema"


class Grammar(Wire):
    """A constraint on the generated text: a JSON schema or a regular expression."""

    type: GrammarType
    value: str | dict[str, Any]


class Parameters(Wire):
    """How to generate. None leaves the choice to the server."""

    do_sample: bool = False
    max_new_tokens: int | None = 20
    """None: up to the end of the context."""
    repetition_penalty: float | None = None
    """1 is no penalty."""
    frequency_penalty: float | None = None
    """0 is no penalty; -2 to 2."""
    return_full_text: bool = False
    stop: list[str] = Field(default_factory=list[str])
    seed: int | None = None
    temperature: float | None = None
    """0 is greedy (TGI itself answers 422 to 0)."""
    top_k: int | None = None
    top_p: float | None = None
    truncate: int | None = None
    """Keep so many tokens at the end of the prompt."""
    typical_p: float | None = None
    best_of: int | None = None
    """Generate so many samples, answer the one with the highest mean log-probability."""
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    top_n_tokens: int | None = None
    grammar: Grammar | None = None
    adapter_id: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        # Written as `not (in range)`, which NaN fails too.
        for name in ("best_of", "repetition_penalty", "top_k", "truncate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValidationError(f"`{name}` must be strictly positive")
        for name in ("temperature", "seed", "top_n_tokens"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValidationError(f"`{name}` must be positive")
        for name in ("top_p", "typical_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ValidationError(f"`{name}` must be > 0.0 and < 1.0")
        if self.frequency_penalty is not None and not -2 <= self.frequency_penalty <= 2:
            raise ValidationError("`frequency_penalty` must be >= -2.0 and <= 2.0")
        if self.grammar is not None and not self.grammar.value:
            raise ValidationError(f"`value` cannot be empty for `{self.grammar.type.value}` grammar")
        self._check_best_of()
        return self

    def _check_best_of(self) -> None:
        if self.best_of is None or self.best_of == 1:
            return
        if self.seed is not None:
            raise ValidationError("`seed` must not be set when `best_of` is > 1")
        warpers = (self.temperature, self.top_k, self.top_p, self.typical_p)
        if not self.do_sample and all(value is None for value in warpers):
            raise ValidationError("you must use sampling when `best_of` is > 1")


class Request(Wire):
    """Body of a generation request."""

    inputs: str
    parameters: Parameters | None = None
    stream: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.inputs:
            raise ValidationError("`inputs` cannot be empty")
        if self.stream and self.parameters is not None and (self.parameters.best_of or 1) > 1:
            raise ValidationError("`best_of` != 1 is not supported when `stream` == True")
        return self


class InputToken(Answer):
    """A token of the prompt; the first one has no log-probability."""

    id: int
    text: str
    logprob: float | None = None


class Token(Answer):
    """A generated token. `logprob` is None where the server's is not finite."""

    id: int
    text: str
    logprob: float | None = None
    special: bool = False


class FinishReason(str, Enum):  # noqa: UP042 - StrEnum changes str()
    """Why a generation ended."""

    Length = "length"
    EndOfSequenceToken = "eos_token"
    StopSequence = "stop_sequence"


# A reason that this version does not know stays a string instead of failing the answer.
AnyFinishReason = Annotated[FinishReason | str, Field(union_mode="left_to_right")]


class BestOfSequence(Answer):
    """One of the samples that `best_of` did not choose."""

    generated_text: str
    finish_reason: AnyFinishReason
    generated_tokens: int
    seed: int | None = None
    prefill: list[InputToken] = Field(default_factory=list[InputToken])
    tokens: list[Token] = Field(default_factory=list[Token])
    top_tokens: list[list[Token]] | None = None


class Details(Answer):
    """Tokens, reason and seed of a generation."""

    finish_reason: AnyFinishReason
    generated_tokens: int
    seed: int | None = None
    prefill: list[InputToken] = Field(default_factory=list[InputToken])
    """Empty unless `decoder_input_details` was asked for."""
    tokens: list[Token] = Field(default_factory=list[Token])
    top_tokens: list[list[Token]] | None = None
    best_of_sequences: list[BestOfSequence] | None = None


class Response(Answer):
    """Answer of `generate`."""

    generated_text: str
    details: Details


class StreamDetails(Answer):
    """Reason, length and seed, on the last event of a stream."""

    finish_reason: AnyFinishReason
    generated_tokens: int
    seed: int | None = None
    input_length: int | None = None


class StreamResponse(Answer):
    """One token of a stream; the last one carries `generated_text` and `details`."""

    token: Token
    top_tokens: list[Token] | None = None
    generated_text: str | None = None
    details: StreamDetails | None = None
    index: int | None = None


class DeployedModel(Answer):
    """A model listed by the Inference API."""

    model_id: str
    sha: str
