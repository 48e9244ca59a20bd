"""What `serving` takes and gives: the vocabulary that HTTP routes and the offline interface share.

Plain dataclasses, no behaviour beyond defaults and the names of parameters. The user's words are in
`SamplingParams`; the engine's, fully resolved, in `tgi.messages`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from tgi.messages import EmbedRequest, EngineInfo, GenerateRequest, Grammar, StepStats, TokenEvent, Vocabulary
from tgi.serving.dialect import Dialect
from tgi.serving.parameter_names import check_names

FinishReason: TypeAlias = Literal["length", "eos_token", "stop_sequence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to generate: TGI's parameters by their HTTP names, None (or absent) meaning TGI's default.

    Shared by `/generate`, the OpenAI routes (which translate) and `tgi.LLM`. Checked by
    `serving.validation`, never here.
    """

    best_of: int | None = None
    """Generate this many samples and keep the one with the highest mean token log-probability."""
    temperature: float | None = None
    """0 is greedy; None is 1."""
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool = False
    max_new_tokens: int | None = None
    """None: the server's default (`--default-max-new-tokens`), else up to the end of the context."""
    max_tokens: InitVar[int | None] = None
    """OpenAI's and vLLM's name of `max_new_tokens`, which it sets."""
    min_tokens: int | None = None
    """Minimum number of tokens: no end of sequence and no stop string before."""
    return_full_text: bool | None = None
    stop: list[str] = field(default_factory=list)
    stop_token_ids: list[int] = field(default_factory=list)
    truncate: int | None = None
    """Keep only the last N tokens of the prompt; above the input limit it is taken as the limit."""
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    seed: int | None = None
    top_n_tokens: int | None = None
    logit_bias: dict[int, float] = field(default_factory=dict)
    ignore_eos: bool = False
    adapter_id: str | None = None
    src_lang: str | None = None
    """Language of the prompt, as a translation model names it; None: the tokenizer's own."""
    tgt_lang: str | None = None
    """Language to translate to; None: the model's own."""
    grammar: Grammar | None = None
    """What the answer must look like."""
    n: int = 1
    """Samples to return, all of them (OpenAI)."""

    def __new__(cls, **parameters: Any) -> SamplingParams:
        """Raises TypeError for a name that does not exist, with the one that is meant."""
        check_names(parameters, cls.__dataclass_fields__)
        return object.__new__(cls)

    def __post_init__(self, max_tokens: int | None) -> None:
        if max_tokens is not None:
            object.__setattr__(self, "max_new_tokens", max_tokens)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A validated prompt: what goes to the engine and what is needed to turn tokens into text."""

    request: GenerateRequest
    prompt: str
    """The prompt as text, whole even when truncated (for `return_full_text`)."""
    params: SamplingParams
    dialect: Dialect
    started: float
    """time.monotonic() when the request came in."""
    validated: float
    """time.monotonic() when validation had ended."""
    waited: float = 0.0
    """Seconds in line before it was looked at."""

    @property
    def begun_ids(self) -> Sequence[int]:
        """What the answer's first token follows: the prompt, or with an encoder what its decoder begins with."""
        return self.request.decoder_ids or self.request.prompt_ids

    @property
    def input_length(self) -> int:
        """Prompt tokens, after truncation."""
        return len(self.request.prompt_ids)


@dataclass(slots=True)
class TextToken:
    """A token as users see it."""

    id: int
    text: str
    """What this token adds to the text, special tokens shown; empty while a UTF-8 character is incomplete."""
    logprob: float | None
    """Natural logarithm; None where there is none (first prompt token) or it is not finite."""
    special: bool = False
    raw: bytes = b""
    """The token's own bytes (OpenAI `logprobs[].bytes`)."""
    top: list[TextToken] = field(default_factory=list)


@dataclass(slots=True)
class Delta:
    """One generated token of one sample."""

    index: int
    """Sample 0..n-1 of the request."""
    token: TextToken
    text: str
    """Text that may be shown now: special tokens left out, stop handling done (see `Dialect`)."""
    position: int
    """1, 2, 3, ... within the sample."""
    prefill: list[TextToken] = field(default_factory=list)
    """The prompt's tokens with log-probabilities, when asked for; else empty. The same list in every delta."""
    final: Completion | None = None
    """With the sample's last token."""
    cached_tokens: int = 0
    """Prompt tokens that were in the prefix cache."""


@dataclass(slots=True)
class Timings:
    """Durations of one sample in seconds."""

    total: float = 0.0
    validation: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    time_per_token: float = 0.0
    time_to_first_token: float = 0.0


def listed(tokens: list[TextToken]) -> int:
    """How many tokens these are with their alternatives, if all have as many as the last."""
    return len(tokens) * (1 + len(tokens[-1].top)) if tokens else 0


@dataclass(slots=True)
class Completion:
    """One finished sample."""

    index: int
    text: str
    """The generated text (without the prompt), special tokens left out, stop handling done."""
    finish_reason: FinishReason
    seed: int | None
    """None when the request was greedy."""
    tokens: list[TextToken]
    prefill: list[TextToken]
    """The prompt's tokens with log-probabilities, when asked for; else empty."""
    input_length: int
    cached_tokens: int
    timings: Timings
    stop_sequence: str | None = None
    mean_logprob: float = -math.inf
    """Of the generated tokens in the model's own distribution, whatever `tokens` report; ranks samples."""

    @property
    def generated_tokens(self) -> int:
        return len(self.tokens)

    @property
    def listed_tokens(self) -> int:
        """All that it tells of, the prompt's too, with their alternatives."""
        return listed(self.tokens) + listed(self.prefill)


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """A token of a tokenised text with its byte offsets (TGI `/tokenize`)."""

    id: int
    text: str
    start: int
    stop: int


class Engine(Protocol):
    """What `serving` needs of an engine; `engine_client.EngineClient` over the socket, fakes in tests."""

    info: EngineInfo
    stats: StepStats
    """Of the last step."""
    last_step_at: float
    """time.monotonic() of the last step (or idle heartbeat) seen."""

    @property
    def alive(self) -> bool:
        """Whether it is there and gives signs of life."""
        ...

    @property
    def silent(self) -> bool:
        """Whether it is there but gives no sign of life: it may come back."""
        ...

    @property
    def open_requests(self) -> int:
        """Requests whose last event has not come yet."""
        ...

    @property
    def queued_tokens(self) -> int:
        """Prompt tokens of those that have no token of their answer yet."""
        ...

    def next_end_s(self) -> float | None:
        """Seconds in which one of them will have ended at the latest, by the pace of its tokens; None: unknown."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[list[TokenEvent], None]:
        """Send the request and give its events, several at once to a slow reader.

        Ends after the last event of every sample. Closing the iterator early aborts the request.
        Raises `errors.GenerationError` when the engine dies.
        """
        ...

    async def embed(self, request: EmbedRequest) -> TokenEvent:
        """Send the request and give its one event. Cancelling aborts it; raises as `generate`."""
        ...

    def introduce(self, vocabulary: Vocabulary) -> None:
        """Tell it of the tokens, once; grammars need that."""
        ...

    def abort(self, request_id: int, index: int = -1) -> None:
        """End one sample (or all, -1) early: its slot is freed and no further event of it is given."""
        ...
