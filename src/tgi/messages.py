"""What crosses the socket between the API process and the engine process.

Owns the wire types and their msgpack encoding; imports neither torch nor anything of the other
packages. Every value here has been resolved by `serving.validation`: no nulls that mean "default",
no strings, no limits left to check. Times are `time.monotonic()` seconds, which all processes of
one machine share.

    API process                                   engine process
    GenerateRequest, EmbedRequest,
    Abort                           -->
    Vocabulary (once)               -->
                                    <--           EngineInfo (once, when ready)
                                    <--           Begun (before a step that is the first of some requests)
                                    <--           StepOutput (one a step; an empty one each second when idle)
                                    <--           EngineFailed (last message of a dying engine)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, Literal, TypeAlias

import msgspec

FinishReason: TypeAlias = Literal["length", "eos_token", "pooled", "error", "abort"]
"""Why the engine ended a sequence. Stop strings are found by `serving`, which then aborts."""

PoolingKind: TypeAlias = Literal["mean", "last", "cls"]
"""Which of a text's hidden states make its vector: the mean of all, that of the last or of the first token."""


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the sampler needs to know of one request, every default resolved.

    Order of application and meaning follow TGI 3.3: watermark, repetition, frequency and presence
    penalty, logit bias, (grammar), temperature, top-k, top-p, typical-p, pick. Penalties of
    frequency and presence use OpenAI's formula over the generated tokens.
    """

    max_new_tokens: int
    """Upper bound of generated tokens, at least 1."""
    min_new_tokens: int = 0
    """End-of-sequence ids are masked until this many tokens are generated."""
    do_sample: bool = False
    """False: argmax of the processed logits."""
    temperature: float = 1.0
    """Strictly positive."""
    top_k: int = 0
    """0: off."""
    top_p: float = 1.0
    """1: off."""
    typical_p: float = 1.0
    """1: off."""
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    watermark: bool = False
    logit_bias: dict[int, float] = {}
    """Token id (already checked against the vocabulary) -> added to its logit."""
    eos_token_ids: tuple[int, ...] = ()
    """Ids that end the sequence; empty when the request ignores end-of-sequence."""
    top_n_tokens: int = 0
    """How many alternatives to report for each generated token."""
    raw_logprobs: bool = False
    """Report log-softmax of the model's own logits (OpenAI) and not after processors (TGI)."""
    own_logprobs: bool = False
    """Beside processed log-probabilities give the chosen token's own (`Token.own`), to rank samples by."""
    prompt_logprobs: int = -1
    """-1: off; n >= 0: log-probability of every prompt token given its prefix, with n alternatives."""


class Grammar(msgspec.Struct, frozen=True):
    """What an answer must look like; equal ones are compiled once."""

    kind: Literal["json_schema", "regex", "lark"]
    text: str
    """A JSON schema as JSON, a regular expression of the whole answer, or rules in llguidance's dialect of Lark."""


class GenerateRequest(msgspec.Struct, frozen=True, tag="generate"):
    """One prompt and the samples wanted of it.

    Every sample is a sequence of its own with index 0..len(seeds)-1; they share the prompt's blocks.
    """

    request_id: int
    prompt_ids: list[int]
    sampling: Sampling
    seeds: tuple[int, ...]
    """One unsigned 64-bit seed for each sample; its length is the number of samples."""
    arrival: float = 0.0
    cache_salt: str = ""
    """Requests share cached prefixes only with requests of the same salt."""
    group: int = 0
    """Groups get equal parts of the machine when they want more than it has; a number, never the API key itself."""
    decoder_ids: tuple[int, ...] = ()
    """What the decoder of a model with an encoder begins with; `prompt_ids` is then the encoder's. Empty: as the engine
    has it (`EngineInfo.decoder_ids`)."""
    grammar: Grammar | None = None
    """What every sample must look like; None: anything."""
    label: str = ""
    """What the request is called in logs, see `tracing.identity`; empty: nobody has named it."""


class EmbedRequest(msgspec.Struct, frozen=True, tag="embed"):
    """A text whose last hidden states are to become one vector; nothing is sampled.

    Its only event has the vector (`TokenEvent.embedding`) and `finish == "pooled"`, or says what went wrong.
    """

    request_id: int
    prompt_ids: list[int]
    pooling: PoolingKind
    dimensions: int = 0
    """First numbers of the vector to keep; 0: all."""
    normalised: bool = True
    """What is kept is divided by its length."""
    arrival: float = 0.0
    cache_salt: str = ""
    group: int = 0
    """As in `GenerateRequest`."""


class Vocabulary(msgspec.Struct, frozen=True, tag="vocabulary"):
    """The text of the tokens, which grammars need: sent once, and requests with a grammar wait for it."""

    eos_token_ids: tuple[int, ...]
    """Those that may end an answer where its grammar ends."""
    tokenizer: bytes = b""
    """A tokenizer.json; empty: `tokens` instead."""
    tokens: list[bytes] = []
    """What each token adds to a text, in the order of ids; empty for those that add nothing."""
    special_ids: tuple[int, ...] = ()
    """Tokens that are not text."""


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """The reader is gone, or has what it wants. Unknown ids are ignored."""

    request_id: int
    index: int = -1
    """One sample, or -1 for all of the request."""


class Token(msgspec.Struct, frozen=True, array_like=True):
    """A token with its log-probability (natural logarithm, float32; -inf is possible)."""

    id: int
    logprob: float
    top: list[tuple[int, float]] = []
    """The most likely alternatives, best first, at most `top_n_tokens`."""
    own: float | None = None
    """Log-probability in the model's own distribution, where asked for (`own_logprobs`) and not `logprob` itself."""


PROMPT_PIECE = 256
"""Tokens."""


class PromptLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probability of prompt token i given tokens 0..i-1; the first has none (NaN)."""

    logprobs: list[float]
    top: list[list[tuple[int, float]]] = []
    """For every prompt token the best alternatives; the first list is empty."""


class TokenEvent(msgspec.Struct, omit_defaults=True):
    """News of one sequence. Every sequence gets exactly one event with `finish` set, its last."""

    request_id: int
    index: int = 0
    tokens: list[Token] = []
    finish: FinishReason | None = None
    error: str | None = None
    """A sentence, with `finish == "error"`."""
    prompt: list[bytes] | None = None
    """With the first token of sample 0, when asked for: see `pack_prompt`."""
    cached_tokens: int = 0
    """Prompt tokens found in the prefix cache; on the first event."""
    scheduled: float = 0.0
    """When the sequence first ran; on the first event."""
    embedding: bytes = b""
    """Of an `EmbedRequest`, float32 in little-endian order."""


class StepStats(msgspec.Struct, omit_defaults=True):
    """The engine after a step, for gauges, health and metrics."""

    step: int = 0
    """Completed steps since start: the heartbeat."""
    running: int = 0
    waiting: int = 0
    free_blocks: int = 0
    """Blocks no sequence holds (cached prefixes count as free)."""
    running_tokens: int = 0
    """Tokens the running sequences may reach (prompt + max_new_tokens), summed."""
    scheduled_prefill_tokens: int = 0
    scheduled_decode_tokens: int = 0
    admitted: int = 0
    """Sequences that left the queue in this step."""
    prefix_hit_tokens: int = 0
    prefix_query_tokens: int = 0
    preemptions: int = 0
    """In this step."""
    schedule_s: float = 0.0
    forward_s: float = 0.0
    sample_s: float = 0.0
    total_s: float = 0.0
    failed: bool = False
    """At least one sequence of the step failed."""


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """These requests have left the queue: the step that begins now reads of their prompts."""

    request_ids: list[int]
    at: float


class StepOutput(msgspec.Struct, tag="step"):
    """All news of one step, in one message."""

    events: list[TokenEvent]
    stats: StepStats


class MemoryRow(msgspec.Struct, frozen=True):
    """One line of the memory table."""

    name: str
    bytes: int
    note: str = ""


class MemoryPlan(msgspec.Struct, frozen=True):
    """Where the memory goes and what fits; computed by `engine.budget`, shown by the launcher and `/info`."""

    rows: list[MemoryRow]
    available_bytes: int
    kv_bytes_per_token: int
    cache_tokens: int
    full_length_requests: float
    """How many requests of `max_total_tokens` fit together."""
    binding_limit: str
    """The limit that binds, in words."""
    lowered: list[str] = []
    """Limits that were lowered to fit, or that go beyond what the model was made for, a sentence each."""


class EngineInfo(msgspec.Struct, frozen=True, tag="ready"):
    """All that the API must know of the engine, sent once when it can take requests."""

    model_type: str
    dtype: str
    device: str
    quantize: str | None
    vocab_size: int
    """Rows of the output head: ids outside 0..vocab_size-1 must be refused before they get here."""
    parameters: int
    weight_bytes: int
    block_size: int
    num_blocks: int
    max_input_tokens: int
    max_total_tokens: int
    max_batch_prefill_tokens: int
    """Tokens of one step."""
    max_batch_total_tokens: int
    """Tokens that fit the cache: block_size * num_blocks."""
    max_batch_size: int
    prefix_caching: bool
    kernels: dict[str, str]
    """Operation -> implementation chosen."""
    memory: MemoryPlan
    load_s: float
    warmup_s: float
    decoder_ids: tuple[int, ...] = ()
    """What the decoder begins with where the model has an encoder, by its config; empty: it has none."""
    max_new_tokens: int | None = None
    """Most tokens that such a decoder has positions for in an answer; None: no limit beside `max_total_tokens`."""
    input_vocab_size: int = 0
    """The same of prompts, where the encoder has other tokens than the decoder; 0: as `vocab_size`."""
    activation_dtype: str | None = None
    """What quantised layers round activations to; None: there are none."""
    num_states: int = 0
    """Slots of states beside the KV cache; 0: the model has none."""
    shares_blocks: bool = True
    """Whether sequences may share what was computed of a common prefix: not if a model keeps a cache of its own."""
    hidden_size: int = 0
    """Numbers of an embedding; 0: the model gives no hidden states, or has an encoder."""


class EngineFailed(msgspec.Struct, frozen=True, tag="failed"):
    """The engine cannot start or cannot go on."""

    error: str
    phase: Literal["load", "allocate", "warmup", "step"]


class EngineLoading(msgspec.Struct, frozen=True, tag="loading"):
    """How far the engine's start is; sent when a phase begins, and while weights are read."""

    phase: Literal["start", "load", "allocate", "warmup"]
    done: int = 0
    total: int = 0
    """Bytes of the checkpoint, in phase load; 0 when unknown."""


ToEngine: TypeAlias = GenerateRequest | EmbedRequest | Abort | Vocabulary
FromEngine: TypeAlias = EngineInfo | Begun | StepOutput | EngineFailed | EngineLoading

encode = msgspec.msgpack.Encoder().encode
_decode_prompt = msgspec.msgpack.Decoder(PromptLogprobs).decode


def pack_prompt(prompt: PromptLogprobs) -> list[bytes]:
    """A long prompt in pieces, so that reading the message that brings it holds up nobody."""
    starts = range(0, len(prompt.logprobs), PROMPT_PIECE)
    pieces = [slice(start, start + PROMPT_PIECE) for start in starts]
    return [encode(PromptLogprobs(prompt.logprobs[piece], prompt.top[piece])) for piece in pieces]


def unpack_prompt(pieces: list[bytes]) -> Iterator[tuple[float, list[tuple[int, float]]]]:
    """Log-probability and alternatives of each token, from the first on."""
    none: Any = []
    for piece in map(_decode_prompt, pieces):
        yield from zip_longest(piece.logprobs, piece.top, fillvalue=none)
