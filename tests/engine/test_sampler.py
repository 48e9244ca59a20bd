"""The sampler against transformers' processors and plain formulas, row by row and in mixed batches."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.engine import sampling_reference as reference
from tests.engine.sampling_reference import sequence
from tgi.engine.grammar.masks import RowMasks
from tgi.engine.sampler import Sampler, prompt_logprobs
from tgi.engine.sampling import logprobs as logprobs_module
from tgi.messages import Grammar, Sampling, Token

pytestmark = pytest.mark.usefixtures("vocabulary")

PARAMETERS = [
    {},
    {"top_n_tokens": 5},
    {"do_sample": True},
    {"do_sample": True, "temperature": 0.3, "top_n_tokens": 4},
    {"do_sample": True, "temperature": 3.0, "raw_logprobs": True, "top_n_tokens": 2},
    {"do_sample": True, "top_k": 1},
    {"do_sample": True, "top_k": 50, "top_n_tokens": 3},
    {"do_sample": True, "top_k": 40, "top_p": 0.7, "temperature": 0.8, "raw_logprobs": True},
    {"do_sample": True, "top_k": 1_000_000, "top_p": 0.99},
    {"do_sample": True, "top_k": 300, "temperature": 5.0},
    {"do_sample": True, "top_p": 0.9, "top_n_tokens": 3},
    {"do_sample": True, "top_p": 0.5, "temperature": 1.7},
    {"do_sample": True, "top_p": 0.95, "typical_p": 0.8},
    {"do_sample": True, "typical_p": 0.2, "top_n_tokens": 2},
    {"do_sample": True, "typical_p": 0.95, "temperature": 0.6},
    {"do_sample": True, "top_k": 30, "top_p": 0.95, "typical_p": 0.5, "temperature": 1.3},
    {"temperature": 0.5, "top_n_tokens": 3},
    {"top_p": 0.8, "typical_p": 0.9, "top_n_tokens": 3},
    {"top_k": 5, "temperature": 2.0},
    {"repetition_penalty": 1.7, "top_n_tokens": 3},
    {"do_sample": True, "frequency_penalty": 0.7, "presence_penalty": -1.1, "top_p": 0.9},
    {"do_sample": True, "repetition_penalty": 0.6, "frequency_penalty": -2.0, "presence_penalty": 2.0, "top_k": 9},
    {"do_sample": True, "logit_bias": {0: 4.0, 7: -100.0, 11: 3.5}, "top_n_tokens": 2},
    {"do_sample": True, "watermark": True, "temperature": 0.9},
    {"watermark": True, "raw_logprobs": True, "top_n_tokens": 3},
    {"do_sample": True, "min_new_tokens": 40, "eos_token_ids": (0, 5, 9), "top_k": 20},
]


def sequences_of(vocab_size: int, count: int, generator: torch.Generator, parameters=PARAMETERS) -> list:
    """`count` sequences, each with its own history, seed and parameters."""
    sequences = []
    for index in range(count):
        ids = torch.randint(vocab_size, (3 + index % 30,), generator=generator).tolist()
        ids += ids[-2:]  # something repeats
        sampling = parameters[index % len(parameters)]
        sequences.append(sequence(ids, num_prompt=1 + len(ids) // 3, seed=index * 2**58 + 3 * index, **sampling))
    return sequences


def check(result: Token | str, row: torch.Tensor, one) -> None:
    token, expected = reference.expect(row, one)
    assert isinstance(result, Token), result
    assert result.id == token, one.sampling
    assert result.logprob == pytest.approx(expected[token].item(), abs=2e-5)
    possible = int((expected > -math.inf).sum())
    best = expected.topk(min(one.sampling.top_n_tokens, possible))
    assert [identity for identity, _ in result.top] == best.indices.tolist()
    assert [value for _, value in result.top] == pytest.approx(best.values.tolist(), abs=2e-5)


def test_the_chosen_token_has_one_log_probability():
    """To the last bit the same alone and among the alternatives, with or without alternatives."""
    generator = torch.Generator().manual_seed(8)
    logits = torch.randn(64, 256, generator=generator) * 2
    sampling = {"do_sample": True, "temperature": 0.7}
    asked = [sequence(seed=row, top_n_tokens=256, **sampling) for row in range(64)]
    plain = [sequence(seed=row, **sampling) for row in range(64)]
    sampler = Sampler(256, torch.device("cpu"))
    for one, other in zip(sampler.sample(logits, asked), sampler.sample(logits, plain), strict=True):
        assert isinstance(one, Token) and isinstance(other, Token)
        assert (one.id, one.logprob) == (other.id, other.logprob)
        assert dict(one.top)[one.id] == one.logprob


@pytest.mark.parametrize("vocab_size", [37, 256, 257, 5003, 20480])
@pytest.mark.parametrize("spread", [0.02, 1.0, 4.0, 20.0])
def test_mixed_batch_equals_transformers(vocab_size, spread):
    generator = torch.Generator().manual_seed(vocab_size + int(spread * 100))
    sequences = sequences_of(vocab_size, len(PARAMETERS), generator)
    logits = torch.randn(len(sequences), vocab_size, generator=generator) * spread
    before = logits.clone()
    results = Sampler(vocab_size, torch.device("cpu")).sample(logits, sequences)
    assert torch.equal(logits, before)
    for result, row, one in zip(results, logits, sequences, strict=True):
        check(result, row, one)


@pytest.mark.parametrize("vocab_size", [256, 5003])
def test_own_log_probabilities_come_beside_the_processed(vocab_size):
    """`own` is the model's log-softmax, and nothing else of the answer changes; None where it is `logprob`."""
    generator = torch.Generator().manual_seed(vocab_size)
    parameters = [one for one in PARAMETERS if not one.get("raw_logprobs")]
    logits = torch.randn(len(parameters), vocab_size, generator=generator) * 3
    sampler = Sampler(vocab_size, torch.device("cpu"))
    plain = sequences_of(vocab_size, len(parameters), generator.manual_seed(1), parameters)
    asked = [{**one, "own_logprobs": True} for one in parameters]
    sequences = sequences_of(vocab_size, len(parameters), generator.manual_seed(1), asked)
    for one, other, row in zip(sampler.sample(logits, sequences), sampler.sample(logits, plain), logits, strict=True):
        assert isinstance(one, Token) and isinstance(other, Token)
        assert (one.id, one.logprob, one.top, other.own) == (other.id, other.logprob, other.top, None)
        own = one.logprob if one.own is None else one.own
        assert own == pytest.approx(row.double().log_softmax(-1)[one.id].item(), abs=2e-5)


def test_peaked_distributions_equal_transformers():
    # What language models give: few likely tokens, a long tail; some ids impossible.
    generator = torch.Generator().manual_seed(5)
    for _ in range(4):
        sequences = sequences_of(10007, 52, generator)
        tail = torch.rand(52, 10007, generator=generator).clamp(min=1e-7).log().neg() * 2
        tail[:, 50:5000:7] = -math.inf
        results = Sampler(10007, torch.device("cpu")).sample(tail, sequences)
        for result, row, one in zip(results, tail, sequences, strict=True):
            check(result, row, one)


def test_what_models_give_is_decided_among_the_candidates(monkeypatch):
    def refuse(*_):
        raise AssertionError("a row went the long way")

    monkeypatch.setattr("tgi.engine.sampler.kept_tokens", refuse)
    generator = torch.Generator().manual_seed(6)
    parameters = [p for p in PARAMETERS if p.get("temperature", 1) <= 1 and p.get("top_k", 1) < 256]
    sequences = sequences_of(10007, len(parameters), generator, parameters)
    tail = torch.rand(len(parameters), 10007, generator=generator).clamp(min=1e-7).log().neg() * 4
    tail[:, ::7] = -math.inf
    results = Sampler(10007, torch.device("cpu")).sample(tail, sequences)
    assert all(isinstance(result, Token) for result in results)


def test_log_probabilities_of_huge_logits(vocabulary):
    logits = torch.zeros(2, 4)
    logits[:, 1:3] = 1e30
    for token in Sampler(4, torch.device("cpu")).sample(logits, [sequence(), sequence(top_k=3, raw_logprobs=True)]):
        assert token == Token(1, pytest.approx(-math.log(2)))
    assert prompt_logprobs(vocabulary, logits, [1, 2], 1)[0] == pytest.approx([-math.log(2)] * 2)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("vocab_size", [151936, 50257])
def test_a_row_does_not_depend_on_its_batch(vocab_size, threads):
    generator = torch.Generator().manual_seed(vocab_size)
    logits = torch.randn(16, vocab_size, generator=generator) * 3
    logits[::3] = logits[::3].bfloat16().float()  # many ties
    sequences = sequences_of(vocab_size, 16, generator, PARAMETERS[1:])
    sampler = Sampler(vocab_size, torch.device("cpu"))
    kept = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = sampler.sample(logits, sequences)
        reverse = sampler.sample(logits.flip(0), sequences[::-1])[::-1]
        alone = [sampler.sample(logits[row : row + 1], [one])[0] for row, one in enumerate(sequences)]
    finally:
        torch.set_num_threads(kept)
    assert all(isinstance(result, Token) for result in together)
    assert together == alone == reverse


def test_seeded_tokens_are_the_same_alone_and_among_fifteen_greedy_rows():
    generator = torch.Generator().manual_seed(8)
    logits = torch.randn(16, 32000, generator=generator)
    sampler = Sampler(32000, torch.device("cpu"))
    for sampling in ({"do_sample": True}, {"do_sample": True, "top_p": 0.9}, {"do_sample": True, "top_k": 10}):
        ones = [sequence(range(position), seed=11, **sampling) for position in range(1, 30)]
        alone = [sampler.sample(logits[3:4], [one])[0] for one in ones]
        mixed = [
            sampler.sample(logits, [sequence() for _ in range(3)] + [one] + [sequence() for _ in range(12)])[3]
            for one in ones
        ]
        assert alone == mixed
        assert len({token.id for token in alone if isinstance(token, Token)}) > 3


def test_ties_go_to_the_lower_id_and_top_k_keeps_all_of_them():
    row = torch.full((1, 4000), -5.0)
    row[0, [3000, 17, 900]] = 2.0
    row[0, [5, 3999]] = 1.0
    sampler = Sampler(4000, torch.device("cpu"))

    def one(**sampling) -> Token:
        (token,) = sampler.sample(row, [sequence(**sampling)])
        assert isinstance(token, Token)
        return token

    assert one().id == 17
    assert [token for token, _ in one(top_n_tokens=4).top] == [17, 900, 3000, 5]
    assert [token for token, _ in one(top_k=2, top_n_tokens=9).top] == [17, 900, 3000]
    assert [token for token, _ in one(top_k=4, top_n_tokens=9).top] == [17, 900, 3000, 5, 3999]
    assert [token for token, _ in one(top_p=1e-9, top_n_tokens=9).top] == [17]
    third = math.exp(2) / (3 * math.exp(2) + 2 * math.exp(1) + 3995 * math.exp(-5))
    assert [token for token, _ in one(top_p=1.5 * third, top_n_tokens=9).top] == [17, 900]


def test_ties_across_all_candidates_are_cut_at_the_lowest_ids():
    row = torch.zeros(1, 3000)  # flat: each token has 1/3000
    sampler = Sampler(3000, torch.device("cpu"))
    for top_p, count in ((0.09999, 300), (0.5 - 1e-6, 1500), (0.01 - 1e-6, 30)):
        (token,) = sampler.sample(row, [sequence(top_p=top_p, top_n_tokens=3000)])
        assert isinstance(token, Token)
        assert [identity for identity, _ in token.top] == list(range(count))
        assert token.logprob == pytest.approx(-math.log(count), abs=1e-5)
    for sampling in ({"top_k": 3}, {"typical_p": 0.1}):
        (token,) = sampler.sample(row, [sequence(top_n_tokens=3000, **sampling)])
        assert isinstance(token, Token) and len(token.top) == 3000


def test_penalties_follow_openai_and_count_only_generated_tokens():
    sampler = Sampler(100, torch.device("cpu"))
    one = sequence([5, 5, 6, 7, 7, 7, 8], num_prompt=3, frequency_penalty=0.5, presence_penalty=0.25, top_n_tokens=100)
    (token,) = sampler.sample(torch.zeros(1, 100), [one])
    assert isinstance(token, Token)
    values = dict(token.top)
    base = values[0]
    assert values[5] == values[6] == base
    assert values[7] - base == pytest.approx(-(3 * 0.5 + 0.25), abs=1e-6)
    assert values[8] - base == pytest.approx(-(0.5 + 0.25), abs=1e-6)


@pytest.mark.parametrize("repetition", [1.0, 1.3])
def test_running_counts_equal_counts_from_scratch(repetition):
    sampling = {"repetition_penalty": repetition, "frequency_penalty": 0.4, "presence_penalty": 0.3, "do_sample": True}
    running = sequence([3, 9, 9, 4], seed=4, **sampling)
    sampler = Sampler(500, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for step in range(200):
        logits = torch.randn(1, 500, generator=generator)
        fresh = sequence(running.token_ids, num_prompt=4, seed=4, **sampling)
        if step == 150:
            sampler.forget([running.sequence_id])  # as a restored sequence would come
        (got,), (want,) = sampler.sample(logits, [running]), sampler.sample(logits, [fresh])
        assert got == want
        check(got, logits[0], running)
        running.token_ids.append(got.id)
        running.position += 1


def test_sampling_twice_changes_nothing():
    one = sequence([1, 2, 3, 4], num_prompt=2, do_sample=True, frequency_penalty=1.0, seed=3)
    sampler = Sampler(50, torch.device("cpu"))
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(1))
    assert sampler.sample(logits, [one]) == sampler.sample(logits, [one])


def test_bias_of_a_hundred_forces_and_forbids():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 1000, generator=generator) * 5
    best = int(logits[1].argmax())
    forced = sequence(do_sample=True, logit_bias={123: 100.0})
    banned = sequence(logit_bias={best: -100.0}, top_n_tokens=999)
    first, second = Sampler(1000, torch.device("cpu")).sample(logits, [forced, banned])
    assert isinstance(first, Token) and isinstance(second, Token)
    assert first.id == 123
    assert second.id != best and second.top[-1][0] != second.id


def test_end_ids_are_masked_until_enough_tokens_exist():
    sampler = Sampler(20, torch.device("cpu"))
    logits = torch.zeros(1, 20)
    logits[0, [4, 6]] = 50.0
    for generated, expected in ((0, 0), (1, 0), (2, 4), (3, 4)):
        # ids beyond the output head do no harm
        one = sequence([1] * (3 + generated), num_prompt=3, min_new_tokens=2, eos_token_ids=(4, 6, 99))
        (token,) = sampler.sample(logits, [one])
        assert isinstance(token, Token) and token.id == expected


def test_prompt_ids_beyond_the_head_do_no_harm():
    (token,) = Sampler(20, torch.device("cpu")).sample(torch.zeros(1, 20), [sequence([1, 500], repetition_penalty=2.0)])
    assert token == Token(0, pytest.approx(-math.log(20)))


def test_watermark_survives_its_cache():
    sampler = Sampler(300, torch.device("cpu"), 0.25, 3.0)
    sampler.watermark._capacity = 2
    first = sampler.watermark.mask(7).clone()
    assert int(first.sum()) == 75
    others = [sampler.watermark.mask(previous) for previous in (8, 9, 10)]
    assert len(sampler.watermark._masks) == 2
    assert torch.equal(sampler.watermark.mask(7), first)
    assert not any(torch.equal(first, other) for other in others)
    (token,) = sampler.sample(torch.zeros(1, 300), [sequence([1, 7], watermark=True, top_n_tokens=75)])
    assert isinstance(token, Token)
    assert sorted(identity for identity, _ in token.top) == first.nonzero().flatten().tolist()


NEGATIVE_NAN = torch.tensor(0xFFC00000 - (1 << 32), dtype=torch.int32).view(torch.float32)
"""NaN with the sign bit, which is what 0 * inf gives on x86."""


@pytest.mark.parametrize("temperature", [1.0, 17.2])
def test_alternatives_are_in_order_where_the_chosen_token_ties_with_others(temperature):
    """Its number, summed in another order, must not stand out of those of the list by its last bits."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.where(torch.rand((40, 300), generator=generator) < 0.4, 30.0, -37.803337)
    sampling = {"do_sample": True, "temperature": temperature, "top_n_tokens": 60}
    sequences = [sequence([1, 2], seed=seed, **sampling) for seed in range(40)]
    for token in Sampler(300, torch.device("cpu")).sample(logits, sequences):
        values = [value for _, value in token.top]
        assert values == sorted(values, reverse=True)
        assert dict(token.top).get(token.id, token.logprob) == token.logprob


def test_greedy_rows_are_the_same_in_a_batch_of_their_own():
    """Which is decided in another way than a batch where any row asks for more."""
    generator = torch.Generator().manual_seed(8)
    logits = 4 * torch.randn((6, 5003), generator=generator)
    logits[1] = 0.0  # ties
    logits[2, 17] = math.nan
    logits[3] = -math.inf
    kinds = [{}, {}, {}, {}, {"raw_logprobs": True}, {"min_new_tokens": 2, "eos_token_ids": (7,)}]
    sequences = [sequence([1, 2, 3, 4], num_prompt=1, seed=5, **kind) for kind in kinds]
    other = sequence([1, 2, 3, 4], num_prompt=1, seed=5, do_sample=True, top_k=5)
    alone = Sampler(5003, torch.device("cpu")).sample(logits, sequences)
    mixed = Sampler(5003, torch.device("cpu")).sample(torch.cat([logits, logits[:1]]), [*sequences, other])
    assert alone == mixed[:-1]
    assert [isinstance(result, Token) for result in alone] == [True, True, False, False, True, True]
    assert alone[1] == Token(0, pytest.approx(-math.log(5003), rel=1e-5))


def test_an_end_id_that_is_banned_is_not_taken_by_greedy_rows():
    logits = torch.zeros((2, 50))
    logits[:, 7] = 9.0
    one, two = (sequence([1] * n, num_prompt=1, min_new_tokens=2, eos_token_ids=(7,)) for n in (2, 3))
    first, second = Sampler(50, torch.device("cpu")).sample(logits, [one, two])
    assert first.id == 0 and second.id == 7
    assert Sampler(50, torch.device("cpu")).sample(logits[:1], [one])[0].id == 0


@pytest.mark.parametrize("poison", [math.nan, NEGATIVE_NAN, math.inf, None], ids=["nan", "-nan", "inf", "all -inf"])
@pytest.mark.parametrize("vocab_size", [50, 9001])
def test_a_broken_row_fails_alone(poison, vocab_size):
    generator = torch.Generator().manual_seed(1)
    parameters = [p for p in PARAMETERS for _ in range(2)]  # one broken, one whole row of each kind
    sequences = sequences_of(vocab_size, len(parameters), generator, parameters)
    logits = torch.randn(len(parameters), vocab_size, generator=generator)
    sampler = Sampler(vocab_size, torch.device("cpu"))
    whole = sampler.sample(logits, sequences)
    broken = logits.clone()
    if poison is None:
        broken[::2] = -math.inf
    else:
        broken[::2, vocab_size // 2] = poison
    results = sampler.sample(broken, sequences)
    assert results[1::2] == whole[1::2]
    assert set(results[::2]) == {"The model produced logits that are not numbers"}


def test_a_row_without_possible_tokens_fails_with_the_reason():
    sampler = Sampler(3, torch.device("cpu"))
    banned = {"min_new_tokens": 5, "eos_token_ids": (0, 1, 2)}
    ones = [sequence(**banned), sequence(do_sample=True, **banned), sequence(top_p=0.5, **banned), sequence()]
    *results, last = sampler.sample(torch.zeros(4, 3), ones)
    assert all(isinstance(result, str) and "min_new_tokens" in result for result in results)
    assert isinstance(last, Token)


def test_prompt_logprobs_equal_log_softmax_whatever_the_slices(monkeypatch, vocabulary):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(23, 700, generator=generator) * 6
    targets = torch.randint(700, (23,), generator=generator).tolist()
    expected = logits.double().log_softmax(-1)
    whole = prompt_logprobs(vocabulary, logits, targets, 4)
    monkeypatch.setattr(logprobs_module, "MAX_LOGITS", 5 * 700)
    assert prompt_logprobs(vocabulary, logits, targets, 4) == whole
    logprobs, tops = whole
    assert logprobs == pytest.approx(expected[range(23), targets].tolist(), abs=1e-5)
    for top, row in zip(tops, expected, strict=True):
        best = row.topk(4)
        assert [token for token, _ in top] == best.indices.tolist()
        assert [value for _, value in top] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert prompt_logprobs(vocabulary, logits, targets, 0) == (logprobs, [[]] * 23)
    assert prompt_logprobs(vocabulary, logits[:0], [], 2) == ([], [])


def test_prompt_logprobs_of_unlikely_and_broken_rows(vocabulary):
    logits = torch.zeros(3, 100)
    logits[0, 1] = 500.0
    logits[1, 0] = math.nan
    logits[2, 5] = -math.inf
    (unlikely, broken, impossible), tops = prompt_logprobs(vocabulary, logits, [2, 2, 5], 1)
    assert unlikely == pytest.approx(-500.0)
    assert math.isnan(broken)
    assert impossible == -math.inf
    assert tops[0] == [(1, 0.0)] and tops[1] == []


def test_an_empty_batch_and_half_precision_logits():
    sampler = Sampler(10, torch.device("cpu"))
    assert sampler.sample(torch.zeros(0, 10), []) == []
    (token,) = sampler.sample(torch.zeros(1, 10, dtype=torch.bfloat16), [sequence()])
    assert token == Token(0, pytest.approx(-math.log(10)))


def test_defaults_are_greedy():
    assert Sampling(max_new_tokens=1).do_sample is False


@pytest.mark.parametrize("greedy", [True, False])
def test_masked_rows(vocabulary, greedy):
    """Wide, narrow and empty masks; own log-probabilities are the model's, others are relative to what is allowed."""
    size, count = 777, 24
    logits = torch.randn((count, size)) * 3
    bits = torch.rand((count, -(-size // 32) * 32)) < torch.tensor([0.002, 0.5, 1.0, 0.0]).repeat(count // 4)[:, None]
    masked = [row for row in range(count) if row % 5]
    draws = []
    for row in range(count):
        own = {"raw_logprobs": True} if row % 2 else {}
        draw = sequence(**own, **({} if greedy else {"top_n_tokens": 1}))
        draws.append(replace(draw, grammar=Grammar("regex", "a")) if row in masked else draw)
    masks = RowMasks(masked, np.packbits(bits[masked].numpy(), axis=1, bitorder="little").view(np.uint32))
    results = Sampler(size, torch.device("cpu"), vocabulary=vocabulary).sample(logits, draws, masks)
    for row, result in enumerate(results):
        allowed = bits[row, :size] if row in masked else torch.ones(size, dtype=torch.bool)
        values = logits[row].masked_fill(~allowed, -torch.inf)
        if not allowed.any():
            assert isinstance(result, str) and "grammar" in result
            continue
        best = int(values.argmax())
        among = logits[row] if row % 2 else values
        assert isinstance(result, Token) and result.id == best
        assert result.logprob == pytest.approx(among.log_softmax(-1)[best].item(), abs=2e-5)
