"""From the user's words to the engine's: every check of a request, with TGI's messages in TGI's order.

Owns limits, defaults, the rule when to sample, seeds and end-of-sequence ids. Every number is bounded
here before it allocates anything. Does not own tokenising (`tokenizer`), threads (`service`) nor the
shape of HTTP bodies (`api`).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from tgi.errors import ValidationError
from tgi.messages import EngineInfo, Sampling
from tgi.serving.dialect import Dialect
from tgi.serving.types import SamplingParams
from tgi.settings.config import ApiConfig
from tgi.shorten import shorten

STEP_TOKENS = 1024
"""Tokens of TGI's generation steps, of which it holds only the first against the limits."""
MAX_SEED = 2**64 - 1
FLOAT32_MAX = 3.4e38
MIN_TEMPERATURE = 1e-5
"""Below, logits / temperature would overflow float32; the distribution is a point long before."""
MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY = 1e-6, 1e6
TOO_LONG = "context_length_exceeded"
"""OpenAI's code, by which its clients know that a shorter prompt would do."""
SHOWN_CHARACTERS = 64
"""Of a text that a message repeats."""
LONG_TEXT_FACTOR = 4
"""How far a text must exceed the longest text the limit could hold to be refused untokenised."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one request."""

    max_input_tokens: int
    max_total_tokens: int
    vocab_size: int
    max_best_of: int
    max_samples: int
    max_stop_sequences: int
    max_stop_sequence_length: int
    max_stop_token_ids: int
    max_top_n_tokens: int
    input_vocab_size: int = 0
    """The same of prompts; 0: no other."""
    max_new_tokens: int | None = None
    """Most tokens of an answer, whatever the input; None: no limit beside `max_total_tokens`."""
    default_max_new_tokens: int | None = None
    """Tokens a request may generate that does not say how many; None: up to the end of the context."""

    @classmethod
    def of(cls, config: ApiConfig, info: EngineInfo) -> Limits:
        return cls(
            max_input_tokens=info.max_input_tokens,
            max_total_tokens=info.max_total_tokens,
            vocab_size=info.vocab_size,
            max_best_of=config.max_best_of,
            max_samples=config.max_concurrent_requests,
            max_stop_sequences=config.max_stop_sequences,
            max_stop_sequence_length=config.max_stop_sequence_length,
            max_stop_token_ids=config.max_stop_token_ids,
            max_top_n_tokens=config.max_top_n_tokens,
            input_vocab_size=info.input_vocab_size,
            max_new_tokens=info.max_new_tokens,
            default_max_new_tokens=config.default_max_new_tokens,
        )


@dataclass(frozen=True, slots=True)
class Checker:
    """The checks of one request; `dialect` gives the names its fields have for the user."""

    params: SamplingParams
    dialect: Dialect
    limits: Limits

    def check_parameters(self, stream: bool) -> None:
        """All that can be said before tokenising, in TGI's order. Raises ValidationError."""
        self._check_best_of(stream)
        self._check_numbers()
        self._check_stop_and_seed()
        self._check_token_ids()
        if self.params.adapter_id is not None:
            given = shorten(self.params.adapter_id, SHOWN_CHARACTERS)
            self.fail("adapter_id", f"`adapter_id` {given} is unknown: no adapters are loaded")

    def check_prompt(self, prompt: str | Sequence[int]) -> None:
        """Empty prompts, ids that are no tokens, `truncate`. Raises ValidationError."""
        if len(prompt) == 0:
            self.fail("inputs", "`inputs` cannot be empty")
        if isinstance(prompt, str):
            self._check_text("inputs", prompt)
        else:
            if self.params.truncate is None:
                self.max_new_tokens(len(prompt))  # before looking at a million ids
            self._check_vocabulary("inputs", prompt, self.limits.input_vocab_size)
        truncate = self.params.truncate
        if truncate is not None and truncate <= 0:
            self.fail("truncate", f"`truncate` must be strictly positive. Given: {truncate}")

    @property
    def truncate(self) -> int | None:
        """How many tokens of the prompt to keep: what was asked for, but no more than a prompt may have."""
        asked = self.params.truncate
        return None if asked is None else min(asked, self.limits.max_input_tokens)

    def check_length(self, prompt: str, longest_token: int) -> None:
        """Refuse a text that cannot fit whatever its tokens, so that it is never tokenised."""
        tokens = len(prompt) // longest_token
        if self.params.truncate is None and tokens > LONG_TEXT_FACTOR * self.limits.max_input_tokens:
            self._input_too_long(f"at least {tokens}")

    def check_tokens(self, ids: Sequence[int], text_of: Callable[[int], str]) -> None:
        """Refuse a text with a token that the model has no embedding for. Raises ValidationError.

        `text_of`: token id -> the token.
        """
        size = self.limits.input_vocab_size or self.limits.vocab_size
        if max(ids, default=0) >= size:
            id = next(id for id in ids if id >= size)
            self.fail(
                "inputs",
                f"`inputs` holds the token {text_of(id)[:64]!r} with id {id}, which is out of vocabulary: "
                f"the model's ids are >= 0 and < {size}",
            )

    def max_new_tokens(self, input_length: int) -> int:
        """The length to generate, once the prompt is tokenised. Raises ValidationError (15, 16)."""
        total, given = self.limits.max_total_tokens, self.params.max_new_tokens
        target = self._default_max_new_tokens(input_length) if given is None else given
        step = min(target, 1 if self.dialect.cuts_max_tokens else STEP_TOKENS)
        if given is None and input_length > self.limits.max_input_tokens and self.dialect.exact_messages:
            self._input_too_long(str(input_length))  # TGI would speak of 0 new tokens
        if input_length + max(step, 0) > total:
            self._total_too_long(input_length, step)
        if input_length > self.limits.max_input_tokens:
            self._input_too_long(str(input_length))
        if input_length == total:
            self._total_too_long(input_length, 1)
        most = self.limits.max_new_tokens
        if most is not None and target > most:
            self.fail("max_new_tokens", f"`max_new_tokens` must be <= {most}, the decoder's positions. Given: {target}")
        return min(target, total - input_length)

    def _default_max_new_tokens(self, input_length: int) -> int:
        """Up to the end of the context, or to the server's default; `min_tokens` beyond that default wins."""
        room, default = max(0, self.limits.max_total_tokens - input_length), self.limits.default_max_new_tokens
        room = room if self.limits.max_new_tokens is None else min(room, self.limits.max_new_tokens)
        return room if default is None else min(room, max(default, self.params.min_tokens or 0))

    def check_grammar_support(self, disabled: bool) -> None:
        """Whether grammars are allowed. Raises ValidationError."""
        if disabled and self.params.grammar is not None:
            self.fail("grammar", self._worded("grammar is not supported", "`grammar` is not supported"))

    def check_grammar(self, reason: str | None) -> None:
        """TGI's last check; `reason`: why the grammar cannot be used. Raises ValidationError."""
        if reason is not None:
            why = reason.replace("`", "'")
            self.fail("grammar", self._worded(f"grammar is not valid: {why}", f"`grammar` is not valid: {why}"))

    def fail(self, name: str, message: str, code: str | None = None) -> NoReturn:
        """Raise ValidationError; names between backticks become those of the user's request."""
        names = self.dialect.param_names
        message = re.sub(r"`(\w+)`", lambda match: f"`{names.get(match[1], match[1])}`", message)
        raise ValidationError(message, param=names.get(name, name), code=code)

    def _worded(self, tgi: str, exact: str) -> str:
        """TGI's sentence, or the one that is right at the bounds too."""
        return exact if self.dialect.exact_messages else tgi

    def _check_best_of(self, stream: bool) -> None:
        params, best_of = self.params, self.params.best_of
        if stream and best_of is not None and best_of != 1:
            self.fail("best_of", "`best_of` != 1 is not supported when streaming tokens")
        if stream and params.decoder_input_details and not self.dialect.prompt_details_in_streams:
            self.fail("decoder_input_details", "`decoder_input_details` == true is not supported when streaming tokens")
        best_of = best_of or 1
        if best_of > 1 and self.limits.max_best_of == 1:
            self.fail("best_of", "`best_of` != 1 is not allowed for this endpoint")
        most = min(self.limits.max_best_of, self.limits.max_samples)
        if not 0 < best_of <= most:
            self.fail("best_of", f"`best_of` must be > 0 and <= {most}. Given: {best_of}")
        if not 0 < params.n <= self.limits.max_samples:
            self.fail("n", f"`n` must be > 0 and <= {self.limits.max_samples}. Given: {params.n}")
        if 1 < best_of < params.n:
            self.fail("best_of", "`best_of` must be >= `n`")
        if best_of > 1 and not uses_sampling_field(params):
            self.fail("best_of", "you must use sampling when `best_of` is > 1")

    def _check_numbers(self) -> None:
        params = self.params
        temperature, penalty = params.temperature, params.repetition_penalty
        if temperature is not None and not temperature >= 0:  # NaN fails every comparison
            exact = f"`temperature` must be strictly positive, or 0 for greedy. Given: {temperature}"
            self.fail("temperature", self._worded("`temperature` must be strictly positive", exact))
        self._check_finite("temperature", temperature)
        if penalty is not None and not penalty > 0:
            self.fail("repetition_penalty", "`repetition_penalty` must be strictly positive")
        self._check_finite("repetition_penalty", penalty)
        for name in ("frequency_penalty", "presence_penalty"):
            value = getattr(params, name)
            if value is not None and not -2 <= value <= 2:
                self.fail(name, f"`{name}` must be >= -2.0 and <= 2.0")
        for name in ("top_p", "typical_p"):
            value = getattr(params, name)
            if value is not None and not 0 < value < 1:
                exact = f"`{name}` must be >= 0.0 and <= 1.0. Given: {value}"
                self.fail(name, self._worded(f"`{name}` must be > 0.0 and < 1.0", exact))
        if params.top_k is not None and params.top_k <= 0:
            exact = f"`top_k` must be strictly positive, or 0 or -1 for off. Given: {params.top_k}"
            self.fail("top_k", self._worded("`top_k` must be strictly positive", exact))
        maximum, minimum = params.max_new_tokens, params.min_tokens
        if maximum is not None and maximum <= 0:
            self.fail("max_new_tokens", "`max_new_tokens` must be strictly positive")
        if minimum is not None and (minimum < 0 or (maximum is not None and minimum > maximum)):
            self.fail("min_tokens", "`min_tokens` must be >= 0 and <= `max_new_tokens`")

    def _check_stop_and_seed(self) -> None:
        params, limits = self.params, self.limits
        check_stop_count(len(params.stop), limits.max_stop_sequences)
        for stop in params.stop:
            if not stop:
                self.fail("stop", "`stop` cannot contain an empty string")
            if len(stop) > limits.max_stop_sequence_length:
                longest = limits.max_stop_sequence_length
                self.fail("stop", f"`stop` sequences may have up to {longest} characters. Given: {len(stop)}")
            self._check_text("stop", stop)
        seed = params.seed
        if seed is not None and (params.best_of or 1) > 1 and not self.dialect.seeds_best_of:
            self.fail("seed", "`seed` must not be set when `best_of` > 1")
        lowest = self.dialect.lowest_seed
        if seed is not None and not lowest <= seed <= MAX_SEED:
            self.fail("seed", f"`seed` must be >= {lowest} and <= {MAX_SEED}. Given: {seed}")
        top = params.top_n_tokens
        if top is not None and not 0 <= top <= limits.max_top_n_tokens:
            self.fail("top_n_tokens", f"`top_n_tokens` must be >= 0 and <= {limits.max_top_n_tokens}. Given: {top}")

    def _check_token_ids(self) -> None:
        self._check_vocabulary("logit_bias", self.params.logit_bias)
        for value in self.params.logit_bias.values():
            if not -100 <= value <= 100:
                self.fail("logit_bias", f"`logit_bias` values must be >= -100 and <= 100. Given: {value}")
        check_stop_ids_count(len(self.params.stop_token_ids), self.limits.max_stop_token_ids)
        self._check_vocabulary("stop_token_ids", self.params.stop_token_ids)

    def _check_vocabulary(self, name: str, ids: Any, size: int = 0) -> None:
        size = size or self.limits.vocab_size
        for id in ids:
            if not isinstance(id, int) or not 0 <= id < size:
                self.fail(name, f"`{name}` token id {str(id)[:32]} is out of vocabulary: ids are >= 0 and < {size}")

    def _check_finite(self, name: str, value: float | None) -> None:
        if value is not None and value > FLOAT32_MAX:
            self.fail(name, f"`{name}` must be a finite number")

    def _check_text(self, name: str, text: str) -> None:
        try:
            text.encode()  # in one go: a loop over two million characters would hold up everybody
        except UnicodeEncodeError:
            self.fail(name, f"`{name}` is not valid Unicode: it holds half of a surrogate pair")

    def _total_too_long(self, input_length: int, step: int) -> NoReturn:
        if self.dialect.exact_messages:
            step = self.params.max_new_tokens or step  # what the user wrote, not TGI's first step of it
        tgi = (
            f"`inputs` tokens + `max_new_tokens` must be <= {self.limits.max_total_tokens}. "
            f"Given: {input_length} `inputs` tokens and {step} `max_new_tokens`"
        )
        self.fail("max_new_tokens", self._worded(tgi, f"{self._context}: {tgi}"), TOO_LONG)

    def _input_too_long(self, given: str) -> NoReturn:
        most = self.limits.max_input_tokens
        tgi = f"`inputs` must have less than {most} tokens. Given: {given}"
        exact = f"{self._context}: `inputs` must have at most {most} tokens. Given: {given}"
        self.fail("inputs", self._worded(tgi, exact), TOO_LONG)

    @property
    def _context(self) -> str:
        """OpenAI's words, by which clients tell a text that is too long from other mistakes."""
        return f"This model's maximum context length is {self.limits.max_total_tokens} tokens"


def check_stop_count(given: int, most: int, name: str = "stop") -> None:
    """How many stop sequences there are in the field `name`. Raises ValidationError."""
    if given > most:
        raise ValidationError(f"`{name}` supports up to {most} stop sequences. Given: {given}", param=name)


def check_stop_ids_count(given: int, most: int) -> None:
    """How many `stop_token_ids` there are. Raises ValidationError."""
    if given > most:
        raise ValidationError(f"`stop_token_ids` supports up to {most} ids. Given: {given}", param="stop_token_ids")


def uses_sampling_field(params: SamplingParams) -> bool:
    """Whether the request names any sampling parameter (TGI's condition for best_of)."""
    if params.temperature == 0:
        return False
    warpers = (params.temperature, params.top_k, params.top_p, params.typical_p)
    return params.do_sample or any(value is not None for value in warpers)


def does_sample(params: SamplingParams) -> bool:
    """TGI's rule: asked for, or a temperature other than 1, or any filter; temperature 0 is greedy."""
    if params.temperature == 0:
        return False
    filters = (params.top_k, params.top_p, params.typical_p)
    warm = params.temperature is not None and params.temperature != 1
    return params.do_sample or warm or any(value is not None for value in filters)


def resolve_sampling(
    params: SamplingParams, dialect: Dialect, limits: Limits, max_new_tokens: int, eos_token_ids: Sequence[int]
) -> Sampling:
    """The engine's view of checked parameters: every default filled in."""
    ends = () if params.ignore_eos else eos_token_ids
    top_n_tokens = params.top_n_tokens or 0
    penalty = 1.0 if params.repetition_penalty is None else params.repetition_penalty
    prompt_logprobs = -1
    if params.decoder_input_details:
        prompt_logprobs = top_n_tokens if dialect.prompt_alternatives else 0
    return Sampling(
        max_new_tokens=max_new_tokens,
        min_new_tokens=min(params.min_tokens or 0, max_new_tokens),
        do_sample=does_sample(params),
        temperature=max(params.temperature or 1.0, MIN_TEMPERATURE),
        top_k=min(params.top_k or 0, limits.vocab_size),
        top_p=params.top_p or 1.0,
        typical_p=params.typical_p or 1.0,
        repetition_penalty=min(max(penalty, MIN_REPETITION_PENALTY), MAX_REPETITION_PENALTY),
        frequency_penalty=params.frequency_penalty or 0.0,
        presence_penalty=params.presence_penalty or 0.0,
        watermark=params.watermark,
        logit_bias=dict(params.logit_bias),
        eos_token_ids=tuple(sorted({*ends, *params.stop_token_ids})),
        top_n_tokens=top_n_tokens,
        raw_logprobs=dialect.raw_logprobs,
        own_logprobs=not dialect.raw_logprobs and (params.best_of or 1) > 1,
        prompt_logprobs=prompt_logprobs,
    )


def resolve_seeds(params: SamplingParams) -> tuple[int, ...]:
    """One seed for each sample: consecutive from the given one, else all random."""
    samples = max(params.n, params.best_of or 1)
    if params.seed is None:
        return tuple(secrets.randbits(64) for _ in range(samples))
    return tuple((params.seed + index) % (MAX_SEED + 1) for index in range(samples))
