"""What both OpenAI routes share in their requests: sampling, stopping, the name of the model.

Owns the translation of OpenAI's words (and TGI's extra ones) into `SamplingParams`. Does not own
limits (`serving.validation`).
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import Discriminator, Field, Tag

from tgi import __version__
from tgi.api.openai.grammar_fields import GrammarFields
from tgi.api.state import Api
from tgi.api.wire.fields import (
    F32,
    I32,
    U32,
    U64,
    Items,
    Numbers,
    RequestModel,
    StringOrList,
    as_list,
    count,
    json_kind,
)
from tgi.errors import MalformedRequestError, ValidationError
from tgi.serving.dialect import OPENAI, Dialect
from tgi.serving.generation_defaults import GenerationDefaults
from tgi.serving.types import FinishReason, SamplingParams
from tgi.serving.validation import check_stop_count, check_stop_ids_count

Result = TypeVar("Result")

OpenAISeed = Annotated[int, Field(ge=-(2**63), le=2**64 - 1)]
LogitBias = Annotated[
    Annotated[Numbers, Tag("object")] | Annotated[Items[F32], Tag("array")],
    Discriminator(
        json_kind,
        custom_error_type="object",
        custom_error_message="expected an object of token ids and biases",
    ),
]
FINISH_REASONS: dict[FinishReason, str] = {"length": "length", "eos_token": "stop", "stop_sequence": "stop"}
NAMELESS_MODELS = frozenset({"", "tgi", "dummy"})
"""Names that clients send when they mean whatever is served."""
UNLIKELY = -9999.0
"""What OpenAI reports for a log-probability that is not a number."""


FINGERPRINT = f"{__version__}-native"
"""`system_fingerprint` of every answer."""


class StreamOptions(RequestModel):
    """What a stream carries beside its tokens."""

    include_usage: bool = Field(False, description="Send a last chunk without choices that has the usage.")
    continuous_usage_stats: bool = Field(False, description="Put the usage so far into every chunk.")


class OpenAIRequest(GrammarFields):
    """Fields that chat and completions have in common."""

    model: str | None = Field(None, description="Name of the model; any name is served by the one model there is.")
    frequency_penalty: F32 | None = Field(None, description="-2 to 2, for each time a token was generated.")
    presence_penalty: F32 | None = Field(None, description="-2 to 2, once a token was generated.")
    logit_bias: LogitBias | None = Field(None, description="Token id -> number added to its logit, -100 to 100.")
    max_tokens: U32 | None = Field(
        None,
        description="Default: the server's, which `/info` tells; none there: up to the end of the context.",
        examples=[32],
    )
    max_completion_tokens: U32 | None = Field(None, description="The same as `max_tokens`.")
    n: U32 | None = Field(None, description="Samples to return.", examples=[2])
    seed: OpenAISeed | None = Field(None, examples=[42])
    stop: StringOrList | None = Field(None, description="Stop before one of these; a string or several.")
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: F32 | None = Field(None, description="0 is greedy; default 1.", examples=[1.0])
    top_p: F32 | None = Field(None, description="0 and 1 are off.", examples=[0.95])
    # beyond OpenAI
    top_k: I32 | None = Field(None, description="Keep the k most likely tokens; 0 and -1 are off.")
    typical_p: F32 | None = None
    repetition_penalty: F32 | None = None
    watermark: bool = False
    truncate: U64 | None = Field(
        None, description="Keep only the last tokens of the prompt: this many, at most as many as a prompt may have."
    )
    adapter_id: str | None = None
    ignore_eos: bool = False
    min_tokens: U32 | None = Field(None, description="Minimum number of tokens before the end of the sequence.")
    stop_token_ids: Items[U32] = Field([])

    @classmethod
    def check_counts(cls, data: Any, api: Api) -> None:
        check_stop_count(count(data, "stop"), api.config.max_stop_sequences)
        check_stop_ids_count(count(data, "stop_token_ids"), api.config.max_stop_token_ids)

    def sampling(self, ignored: list[str], defaults: GenerationDefaults, **more: Any) -> SamplingParams:
        """In the words of `serving`; what has no effect is added to `ignored`, `defaults` fill what is left open."""
        temperature = _either(self.temperature, defaults.temperature)
        top_p, top_k = _either(self.top_p, defaults.top_p), _either(self.top_k, defaults.top_k)
        given: dict[str, Any] = {
            "temperature": temperature,
            "do_sample": temperature != 0,
            # Clients of many servers send these values for "off"; TGI's own routes refuse them.
            "top_p": None if top_p in (0, 1) else top_p,
            "typical_p": None if self.typical_p in (0, 1) else self.typical_p,
            "top_k": None if top_k in (0, -1) else top_k,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "repetition_penalty": _either(self.repetition_penalty, defaults.repetition_penalty),
            "max_new_tokens": self.wanted_tokens,
            "min_tokens": self.min_tokens,
            "stop": as_list(self.stop),
            "stop_token_ids": self.stop_token_ids,
            "seed": self.seed,
            "n": 1 if self.n is None else self.n,
            "logit_bias": self._biases(ignored),
            "watermark": self.watermark,
            "truncate": self.truncate,
            "ignore_eos": self.ignore_eos,
            "adapter_id": self.adapter_id,
        }
        return SamplingParams(**given | more)

    @property
    def wanted_tokens(self) -> int | None:
        """`max_tokens` by either of its names; both together are an error, at OpenAI as in TGI."""
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise MalformedRequestError(
                "Failed to deserialize the JSON body into the target type: "
                "`max_tokens` and `max_completion_tokens` are the same field",
                param="max_completion_tokens",
            )
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens

    def dialect(self, **names: str) -> Dialect:
        """How `serving` treats the request; `names` are those of the route's own fields, for errors."""
        tokens = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
        return OPENAI.renamed({"max_new_tokens": tokens, "grammar": self.grammar_field, **names})

    def _biases(self, ignored: list[str]) -> dict[int, float]:
        if isinstance(self.logit_bias, list):  # TGI's form, which never had an effect
            ignored.append("logit_bias")
            return {}
        biases: dict[int, float] = {}
        for key, bias in (self.logit_bias or {}).items():
            if not (key.isascii() and key.isdecimal() and len(key) < 20):
                raise ValidationError("`logit_bias` keys must be token ids", param="logit_bias")
            biases[int(key)] = bias
        return biases

    def check_model(self, served: tuple[str, ...], ignored: list[str]) -> None:
        """Any name is accepted while there is one model; one that means something else is noted."""
        name = self.model
        if name is None or name in NAMELESS_MODELS or name in served or "://" in name:
            return
        ignored.append("model")

    def check_stream_options(self, ignored: list[str]) -> None:
        if not self.stream and self.stream_options is not None:
            ignored.append("stream_options")

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def usage_in_chunks(self) -> bool:
        return self.stream_options is not None and self.stream_options.continuous_usage_stats


def _either(given: Result | None, default: Result | None) -> Result | None:
    return default if given is None else given


def known(logprob: float | None) -> float:
    """OpenAI's clients expect a number."""
    return UNLIKELY if logprob is None else logprob
