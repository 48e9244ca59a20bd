"""Bodies of `/v1/completions`.

Owns their names and types, and the four forms of `prompt`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from tgi.api.openai.types import OpenAIRequest
from tgi.api.openai.usage import Usage
from tgi.api.state import Api
from tgi.api.wire.errors import WordedError
from tgi.api.wire.fields import U32
from tgi.serving.generation_defaults import GenerationDefaults
from tgi.serving.types import SamplingParams

MAX_TOKEN_ID = 2**32 - 1


def check_batch(prompts: int, limit: int) -> None:
    """How many prompts there are. Raises WordedError."""
    if prompts > limit:
        message = (
            f"Number of prompts exceeds the maximum allowed batch size of {limit} (--max-client-batch-size). "
            f"Given: {prompts}"
        )
        raise WordedError(422, message, "batch size exceeded", param="prompt")


def _is_ids(value: Any) -> bool:
    if not isinstance(value, list) or not set(map(type, value)) <= {int}:  # also refuses true, which is an int
        return False
    return not value or (min(value) >= -MAX_TOKEN_ID and max(value) <= MAX_TOKEN_ID)


def _as_prompts(value: Any) -> list[str | list[int]]:
    """One or several prompts, each a text or token ids, as a list."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        if not value:
            raise PydanticCustomError("empty", "Empty array detected. Do not use an empty array for the prompt.")
        if _is_ids(value):
            return [value]
        if all(isinstance(one, str) for one in value) or all(_is_ids(one) for one in value):
            return value
    raise PydanticCustomError("prompt", "expected a string, an array of strings, token ids or arrays of token ids")


Prompt = Annotated[
    Any,
    BeforeValidator(_as_prompts),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}},
                {"type": "array", "items": {"type": "integer"}},
                {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
            ]
        }
    ),
]


class CompletionRequest(OpenAIRequest):
    """Prompts and how to continue them."""

    prompt: Prompt = Field(description="One or several prompts, as text or token ids.")
    best_of: U32 | None = Field(None, description="Generate this many samples and return the `n` best.")
    echo: bool = Field(False, description="Put the prompt before the text; with `logprobs` its tokens too.")
    logprobs: U32 | None = Field(None, description="Log-probabilities, with this many alternatives for each token.")
    suffix: str | None = Field(None, description="Not supported: an error.")

    @classmethod
    def check_counts(cls, data: Any, api: Api) -> None:
        super().check_counts(data, api)
        prompt = data.get("prompt") if isinstance(data, dict) else None
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], (str, list)):
            check_batch(len(prompt), api.config.max_client_batch_size)

    @property
    def samples(self) -> int:
        """Samples returned of each prompt."""
        return 1 if self.n is None else self.n

    @property
    def wants_none(self) -> bool:
        """Only the prompt's log-probabilities are of interest."""
        return self.wanted_tokens == 0

    def completion_sampling(self, ignored: list[str], defaults: GenerationDefaults) -> SamplingParams:
        """In the words of `serving`, for each prompt."""
        form = self.wanted_grammar(ignored)
        return self.sampling(
            ignored,
            defaults,
            # The engine generates at least one token; of a request for none it is dropped.
            max_new_tokens=1 if self.wants_none else self.wanted_tokens,
            best_of=self.best_of,
            top_n_tokens=self.logprobs,
            decoder_input_details=self.echo and self.logprobs is not None,
            details=True,
            grammar=form and form[0],
        )


class CompletionLogprobs(msgspec.Struct):
    """The legacy shape: four lists, an entry for each token; a prompt's first token has none."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(msgspec.Struct):
    """One sample of one prompt."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None


class CompletionFinal(msgspec.Struct):
    """A whole answer; choices in the order of the prompts."""

    object: str
    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage


class Chunk(msgspec.Struct):
    """One event: one token, or at the end the usage without choices."""

    object: str
    id: str
    created: int
    choices: list[CompletionChoice]
    model: str
    system_fingerprint: str
    usage: Usage | UnsetType | None = UNSET
