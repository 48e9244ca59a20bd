"""Every check of a request with its exact message, in order; and what the engine gets of the rest."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.fake_engine import engine_info
from tgi.errors import ValidationError
from tgi.serving.dialect import OPENAI, TGI, TGI_RAW, Dialect
from tgi.serving.types import SamplingParams
from tgi.serving.validation import Checker, Limits, resolve_sampling, resolve_seeds
from tgi.settings.config import ApiConfig

LIMITS = Limits.of(ApiConfig("m", "m"), engine_info(max_input_tokens=100, max_total_tokens=2000, vocab_size=50))


def check(
    stream: bool = False,
    prompt: str | list[int] = "x",
    input_length: int = 1,
    dialect: Dialect = TGI,
    limits: Limits = LIMITS,
    **fields: Any,
) -> int:
    """All checks in the order of `Service.prepare`; gives max_new_tokens."""
    checker = Checker(SamplingParams(**fields), dialect, limits)
    checker.check_parameters(stream)
    checker.check_prompt(prompt)
    length = checker.max_new_tokens(input_length)
    checker.check_grammar_support(disabled=True)
    return length


NO_BEST_OF = dataclasses.replace(LIMITS, max_best_of=1)
MESSAGES = [
    ({"stream": True, "best_of": 2}, "`best_of` != 1 is not supported when streaming tokens"),
    ({"stream": True, "best_of": 0}, "`best_of` != 1 is not supported when streaming tokens"),
    (
        {"stream": True, "decoder_input_details": True},
        "`decoder_input_details` == true is not supported when streaming tokens",
    ),
    ({"best_of": 2, "limits": NO_BEST_OF}, "`best_of` != 1 is not allowed for this endpoint"),
    ({"best_of": 3}, "`best_of` must be > 0 and <= 2. Given: 3"),
    ({"best_of": 10**9}, "`best_of` must be > 0 and <= 2. Given: 1000000000"),
    ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
    ({"best_of": 2, "temperature": 0.0}, "you must use sampling when `best_of` is > 1"),
    ({"temperature": -0.1}, "`temperature` must be strictly positive"),
    ({"temperature": float("nan")}, "`temperature` must be strictly positive"),
    ({"temperature": 1e308}, "`temperature` must be a finite number"),
    ({"repetition_penalty": 0.0}, "`repetition_penalty` must be strictly positive"),
    ({"repetition_penalty": float("inf")}, "`repetition_penalty` must be a finite number"),
    ({"frequency_penalty": 2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
    ({"frequency_penalty": float("nan")}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
    ({"presence_penalty": -2.1}, "`presence_penalty` must be >= -2.0 and <= 2.0"),
    ({"top_p": 0.0}, "`top_p` must be > 0.0 and < 1.0"),
    ({"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0"),
    ({"typical_p": 1.0}, "`typical_p` must be > 0.0 and < 1.0"),
    ({"top_k": 0}, "`top_k` must be strictly positive"),
    ({"top_k": -1}, "`top_k` must be strictly positive"),
    ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
    ({"max_new_tokens": 5, "min_tokens": 6}, "`min_tokens` must be >= 0 and <= `max_new_tokens`"),
    ({"stop": ["a"] * 5}, "`stop` supports up to 4 stop sequences. Given: 5"),
    ({"stop": ["a", ""]}, "`stop` cannot contain an empty string"),
    ({"seed": 1, "best_of": 2, "do_sample": True}, "`seed` must not be set when `best_of` > 1"),
    ({"seed": -1}, "`seed` must be >= 0 and <= 18446744073709551615. Given: -1"),
    ({"seed": 2**64}, "`seed` must be >= 0 and <= 18446744073709551615. Given: 18446744073709551616"),
    ({"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
    ({"n": 129}, "`n` must be > 0 and <= 128. Given: 129"),
    ({"n": 0}, "`n` must be > 0 and <= 128. Given: 0"),
    ({"n": 10**9}, "`n` must be > 0 and <= 128. Given: 1000000000"),
    ({"logit_bias": {50: 1.0}}, "`logit_bias` token id 50 is out of vocabulary: ids are >= 0 and < 50"),
    ({"logit_bias": {-1: 1.0}}, "`logit_bias` token id -1 is out of vocabulary: ids are >= 0 and < 50"),
    ({"logit_bias": {1: float("inf")}}, "`logit_bias` values must be >= -100 and <= 100. Given: inf"),
    ({"logit_bias": {1: float("nan")}}, "`logit_bias` values must be >= -100 and <= 100. Given: nan"),
    ({"stop_token_ids": [50]}, "`stop_token_ids` token id 50 is out of vocabulary: ids are >= 0 and < 50"),
    ({"adapter_id": "other"}, "`adapter_id` other is unknown: no adapters are loaded"),
    ({"prompt": ""}, "`inputs` cannot be empty"),
    ({"prompt": []}, "`inputs` cannot be empty"),
    ({"prompt": [1, 50]}, "`inputs` token id 50 is out of vocabulary: ids are >= 0 and < 50"),
    ({"prompt": [[]]}, "`inputs` token id [] is out of vocabulary: ids are >= 0 and < 50"),
    ({"prompt": [99] * 101}, "`inputs` must have less than 100 tokens. Given: 101"),
    ({"prompt": "a\ud800"}, "`inputs` is not valid Unicode: it holds half of a surrogate pair"),
    ({"truncate": 0}, "`truncate` must be strictly positive. Given: 0"),
    ({"truncate": -1}, "`truncate` must be strictly positive. Given: -1"),
    ({"truncate": 0, "prompt": [1, 2]}, "`truncate` must be strictly positive. Given: 0"),
    (
        {"input_length": 977, "max_new_tokens": 5000},
        "`inputs` tokens + `max_new_tokens` must be <= 2000. Given: 977 `inputs` tokens and 1024 `max_new_tokens`",
    ),
    (
        {"input_length": 2001},
        "`inputs` tokens + `max_new_tokens` must be <= 2000. Given: 2001 `inputs` tokens and 0 `max_new_tokens`",
    ),
    ({"input_length": 101}, "`inputs` must have less than 100 tokens. Given: 101"),
    ({"input_length": 2000}, "`inputs` must have less than 100 tokens. Given: 2000"),
    ({"grammar": {"type": "regex"}}, "grammar is not supported"),
]


@pytest.mark.parametrize(("request_", "message"), MESSAGES, ids=[message[:40] for _, message in MESSAGES])
def test_message(request_, message):
    with pytest.raises(ValidationError) as caught:
        check(**request_)
    assert caught.value.message == message
    assert caught.value.text == f"Input validation error: {message}"


def test_the_first_broken_rule_speaks():
    """TGI's order: fixing one fault after the other brings up the next."""
    faults = {
        "temperature": -1, "repetition_penalty": 0, "frequency_penalty": 3, "top_p": 2, "typical_p": 2, "top_k": 0,
        "max_new_tokens": 0, "stop": ["a"] * 5, "seed": -1, "top_n_tokens": 9, "truncate": 0, "grammar": {},
    }  # fmt: skip
    for name in list(faults):
        with pytest.raises(ValidationError) as caught:
            check(**faults)
        assert caught.value.param == name
        del faults[name]
    check()


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.0, "top_p": 0.9},
        {"best_of": 0},
        {"best_of": 1, "stream": True},
        {"decoder_input_details": True, "stream": True, "dialect": OPENAI},
        {"top_n_tokens": 0},
        {"truncate": 100},
        {"truncate": 101},
        {"truncate": 2**64 - 1, "prompt": [1, 2]},
        {"input_length": 100},
        {"frequency_penalty": -2.0, "presence_penalty": 2.0},
        {"seed": 2**64 - 1},
        {"seed": -(2**63), "dialect": OPENAI},
        {"seed": 1, "best_of": 2, "do_sample": True, "dialect": OPENAI},
        {"top_k": 2**63},
        {"n": 128},
    ],
)
def test_the_edges_pass(fields):
    check(**fields)


@pytest.mark.parametrize(
    ("given", "input_length", "expected"),
    [(None, 100, 1900), (1, 100, 1), (1024, 100, 1024), (5000, 100, 1900), (1500, 100, 1500), (2**63, 1, 1999)],
)
def test_max_new_tokens_reaches_to_the_end_of_the_context(given, input_length, expected):
    assert check(max_new_tokens=given, input_length=input_length) == expected


def test_names_are_the_users():
    for fields, name in [({"max_new_tokens": 0}, "max_tokens"), ({"top_n_tokens": 9}, "top_logprobs")]:
        with pytest.raises(ValidationError) as caught:
            check(dialect=OPENAI, **fields)
        assert caught.value.param == name


@pytest.mark.parametrize("fields", [{"input_length": 101}, {"input_length": 1, "max_new_tokens": 2000}])
def test_what_is_too_long_has_the_code_of_openai(fields):
    limits = dataclasses.replace(LIMITS, max_total_tokens=1000)
    with pytest.raises(ValidationError) as caught:
        check(limits=limits, dialect=OPENAI, **fields)
    assert caught.value.code == "context_length_exceeded"


def test_a_hopelessly_long_text_is_refused_untokenised():
    checker = Checker(SamplingParams(), TGI, LIMITS)
    checker.check_length("x" * 4000, longest_token=10)
    with pytest.raises(ValidationError, match="Given: at least 401"):
        checker.check_length("x" * 4010, longest_token=10)
    Checker(SamplingParams(truncate=5), TGI, LIMITS).check_length("x" * 10**6, longest_token=1)


@pytest.mark.parametrize(
    ("fields", "samples"),
    [
        ({}, False),
        ({"temperature": 1.0}, False),
        ({"do_sample": True}, True),
        ({"temperature": 0.5}, True),
        ({"top_k": 1}, True),
        ({"top_p": 0.5}, True),
        ({"typical_p": 0.5}, True),
        ({"temperature": 0.0, "do_sample": True, "top_p": 0.9}, False),
    ],
)
def test_when_to_sample(fields, samples):
    assert resolve(**fields).do_sample == samples


def resolve(dialect: Dialect = TGI, eos: tuple[int, ...] = (2,), **fields: Any):
    return resolve_sampling(SamplingParams(**fields), dialect, LIMITS, 10, eos)


def test_defaults_are_neutral():
    sampling = resolve()
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.typical_p) == (1.0, 0, 1.0, 1.0)
    assert (sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty) == (1.0, 0.0, 0.0)
    assert (sampling.max_new_tokens, sampling.eos_token_ids, sampling.prompt_logprobs) == (10, (2,), -1)


def test_numbers_are_bounded_for_the_engine():
    sampling = resolve(temperature=1e-300, repetition_penalty=1e30, top_k=2**40, min_tokens=99)
    assert (sampling.temperature, sampling.repetition_penalty, sampling.top_k) == (1e-5, 1e6, 50)
    assert sampling.min_new_tokens == 10


def test_end_of_sequence_ids():
    assert resolve(ignore_eos=True).eos_token_ids == ()
    assert resolve(ignore_eos=True, stop_token_ids=[7]).eos_token_ids == (7,)
    assert resolve(stop_token_ids=[7, 2]).eos_token_ids == (2, 7)


def test_prompt_logprobs_have_alternatives_on_openai_routes_only():
    assert resolve(decoder_input_details=True, top_n_tokens=3).prompt_logprobs == 0
    assert resolve(decoder_input_details=True, top_n_tokens=3, dialect=OPENAI).prompt_logprobs == 3
    assert resolve(dialect=OPENAI).raw_logprobs


def test_seeds():
    assert resolve_seeds(SamplingParams(seed=7)) == (7,)
    assert resolve_seeds(SamplingParams(seed=2**64 - 1, n=3)) == (2**64 - 1, 0, 1)
    assert resolve_seeds(SamplingParams(seed=-1)) == (2**64 - 1,)
    first, second = (resolve_seeds(SamplingParams(best_of=2, do_sample=True)) for _ in range(2))
    assert len({*first, *second}) == 4
    assert all(0 <= seed < 2**64 for seed in first)


@pytest.mark.parametrize(("asked", "kept"), [(None, None), (1, 1), (100, 100), (101, 100), (2**64 - 1, 100)])
def test_truncate_is_at_most_the_longest_prompt(asked: int | None, kept: int | None) -> None:
    assert Checker(SamplingParams(truncate=asked), TGI, LIMITS).truncate == kept


@pytest.mark.parametrize(
    ("fields", "input_length", "length"),
    [
        ({}, 10, 50),
        ({}, 60, 50),
        ({}, 99, 50),
        ({"max_new_tokens": 500}, 10, 500),
        ({"max_new_tokens": 3}, 10, 3),
        ({"min_tokens": 70}, 10, 70),
        ({"min_tokens": 20}, 10, 50),
        ({"min_tokens": 9999}, 10, 1990),
    ],
)
def test_default_of_max_new_tokens(fields: dict[str, int], input_length: int, length: int) -> None:
    """What a request says wins; the default bends to `min_tokens` and to the end of the context."""
    limits = dataclasses.replace(LIMITS, default_max_new_tokens=50)
    assert Checker(SamplingParams(**fields), TGI, limits).max_new_tokens(input_length) == length


def test_default_of_max_new_tokens_never_refuses() -> None:
    limits = dataclasses.replace(LIMITS, default_max_new_tokens=1024, max_total_tokens=120)
    assert Checker(SamplingParams(), TGI, limits).max_new_tokens(100) == 20


@pytest.mark.parametrize(
    ("dialect", "fields", "raw", "own"),
    [
        (TGI, {"best_of": 2}, False, True),
        (TGI, {"best_of": 1}, False, False),
        (TGI, {}, False, False),
        (TGI_RAW, {"best_of": 2}, True, False),
        (OPENAI, {"best_of": 2}, True, False),
    ],
)
def test_samples_are_ranked_by_the_models_own(dialect: Dialect, fields: dict[str, Any], raw: bool, own: bool) -> None:
    sampling = resolve(dialect=dialect, do_sample=True, **fields)
    assert (sampling.raw_logprobs, sampling.own_logprobs) == (raw, own)
    assert resolve(dialect=TGI_RAW, decoder_input_details=True, top_n_tokens=3).prompt_logprobs == 0
