"""Bodies of TGI's own routes: pydantic models for requests, msgspec structs for answers.

Owns names, types and documentation, which `/docs` shows; TGI's published OpenAPI document is the
contract. Does not check limits (`serving.validation`) or produce texts.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import Field

from tgi.api.wire.fields import F32, I32, U32, U64, Items, RequestModel
from tgi.serving.grammars.build import tgi_grammar
from tgi.serving.types import FinishReason, SamplingParams
from tgi.serving.validation import does_sample


class GenerateParameters(RequestModel):
    """How to generate; every parameter may be left out or null."""

    best_of: U64 | None = Field(
        None, description="Generate this many samples and return the one with the highest mean token log-probability."
    )
    temperature: F32 | None = Field(None, description="0 is greedy; default 1.", examples=[0.5])
    repetition_penalty: F32 | None = Field(None, description="1.0 is no penalty.", examples=[1.03])
    frequency_penalty: F32 | None = Field(
        None, description="-2 to 2; taken from a token's logit for each time it was generated.", examples=[0.1]
    )
    top_k: I32 | None = Field(None, description="Keep the k most likely tokens.", examples=[10])
    top_p: F32 | None = Field(None, description="Keep the most likely tokens that sum to p.", examples=[0.95])
    typical_p: F32 | None = Field(None, description="Typical decoding mass.", examples=[0.95])
    do_sample: bool = Field(False, description="Sample; true when `parameters` is left out altogether.")
    max_new_tokens: U32 | None = Field(
        None,
        description="Default: the server's, which `/info` tells; none there: up to the end of the context.",
        examples=[20],
    )
    return_full_text: bool | None = Field(None, description="Put the prompt before the generated text.")
    stop: Items[str] = Field([], description="Stop when one of these is generated.", examples=[["photographer"]])
    truncate: U64 | None = Field(
        None, description="Keep only the last tokens of the prompt: this many, at most as many as a prompt may have."
    )
    watermark: bool = Field(False, description="Watermark the text (A Watermark for Large Language Models).")
    details: bool = Field(False, description="Return finish reason, tokens and log-probabilities.")
    decoder_input_details: bool = Field(
        False, description="Return log-probabilities of the prompt's tokens; implies `details`."
    )
    seed: U64 | None = Field(None, description="Random seed; the same seed gives the same text in any batch.")
    top_n_tokens: U32 | None = Field(
        None, description="Number of alternatives to report for every token.", examples=[5]
    )
    grammar: Any = Field(
        None,
        description='What the text must look like: `{"type": "json", "value": <JSON schema>}`, '
        '`{"type": "json_schema", "value": {"schema": ...}}` or `{"type": "regex", "value": "..."}`.',
        examples=[None],
    )
    adapter_id: str | None = Field(None, description="LoRA adapter; an unknown one is an error.")
    src_lang: str | None = Field(
        None, description="Language of `inputs` for a translation model with a token for each."
    )
    tgt_lang: str | None = Field(None, description="Language to translate to.")
    ignore_eos: bool = Field(False, description="Generate on after end-of-sequence tokens.")
    min_tokens: U32 | None = Field(None, description="Minimum number of tokens before the end of the sequence.")

    def sampling(self, ignored: list[str]) -> SamplingParams:
        """In the words of `serving`; what has no effect is added to `ignored`."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if self.grammar is not None:
            given["grammar"] = tgi_grammar(self.grammar, ignored)
        params = SamplingParams(**given)
        # TGI samples wherever a parameter makes sense only then, and `temperature` 0 is greedy, whatever this says.
        if "do_sample" in self.model_fields_set and self.do_sample != does_sample(params):
            ignored.append("parameters.do_sample")
        return params


class GenerateRequest(RequestModel):
    """A prompt and how to continue it."""

    inputs: str = Field(examples=["My name is Olivier and I"])
    parameters: GenerateParameters | None = None

    def sampling(self, ignored: list[str]) -> SamplingParams:
        """Without any `parameters` TGI samples, with an empty object it does not."""
        return SamplingParams(do_sample=True) if self.parameters is None else self.parameters.sampling(ignored)


class CompatGenerateRequest(GenerateRequest):
    """As GenerateRequest, and whether to stream."""

    stream: bool = False


class Token(msgspec.Struct):
    """A generated token."""

    id: int
    text: str
    logprob: float | None
    special: bool


class PrefillToken(msgspec.Struct):
    """A prompt token; the first has no log-probability."""

    id: int
    text: str
    logprob: float | None


class BestOfSequence(msgspec.Struct):
    """A sample that was not the best."""

    generated_text: str
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[Token]
    top_tokens: list[list[Token]] | UnsetType = UNSET


class Details(msgspec.Struct):
    """How the text came about."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[Token]
    best_of_sequences: list[BestOfSequence] | UnsetType = UNSET
    top_tokens: list[list[Token]] | UnsetType = UNSET


class GenerateResponse(msgspec.Struct):
    """The text, and the details if asked for."""

    generated_text: str
    details: Details | UnsetType = UNSET


class StreamDetails(msgspec.Struct):
    """On the last event, if asked for."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int


class StreamResponse(msgspec.Struct):
    """One event: one token; the last also carries the whole text."""

    index: int
    token: Token
    top_tokens: list[Token] | UnsetType = UNSET
    generated_text: str | None = None
    details: StreamDetails | None = None


class SimpleToken(msgspec.Struct):
    """A token of a text with its byte offsets."""

    id: int
    text: str
    start: int
    stop: int
