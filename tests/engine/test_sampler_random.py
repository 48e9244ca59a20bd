"""Random numbers, picking and ranking: known answers, independent formulas, distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.engine import sampling_reference as reference
from tests.engine.sampling_reference import sequence
from tgi.engine.sampler import Sampler
from tgi.engine.sampling.philox import philox, uniforms
from tgi.kernels.reference.vocabulary import pick, pick_among, ranked, row_sums
from tgi.messages import Token

pytestmark = pytest.mark.usefixtures("vocabulary")


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # the known answers that come with the authors' library
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_known_answers(counter, key, words):
    columns = philox(np.array([counter] * 2, dtype=np.uint64).T, np.array([key] * 2, dtype=np.uint64).T)
    assert columns.T.tolist() == [words] * 2


def test_uniforms_equal_python_integers():
    seeds = [0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 1234567890123456789]
    pairs = [(seed, position) for seed in seeds for position in (0, 1, 17, 2**31, 2**40)]
    got = uniforms([seed for seed, _ in pairs], [position for _, position in pairs])
    assert got.tolist() == [reference.uniform(*pair) for pair in pairs]
    assert uniforms([], []).tolist() == []


def test_uniforms_are_uniform_and_uncorrelated():
    for seeds, positions in (([7] * 40000, range(40000)), (range(40000), [7] * 40000)):
        numbers = uniforms(seeds, positions)
        assert numbers.min() >= 0.0 and numbers.max() < 1.0
        counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
        assert ((counts - 400) ** 2 / 400).sum() < 99 + 6 * math.sqrt(2 * 99)
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 6 / math.sqrt(40000)


LONG = 700
"""Ids of a vocabulary in which the likely tokens are spread over several blocks."""


@pytest.mark.parametrize("width", [12, LONG])
@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 5},
        {"top_p": 0.8},
        {"typical_p": 0.7},
        {"top_k": 600, "top_p": 0.999},  # beyond the candidates when the vocabulary is long
        {"repetition_penalty": 1.5, "logit_bias": {1: 1.0}},
    ],
)
def test_frequencies_follow_the_probabilities(sampling, width):
    logits = torch.full((1, width), -12.0)
    hot = torch.linspace(0, width - 1, 12).long()
    logits[0, hot] = torch.randn(12, generator=torch.Generator().manual_seed(4))
    sampler = Sampler(width, torch.device("cpu"))
    counts = np.zeros(width)
    draws = 4096
    for start in range(0, draws, 256):
        ones = [sequence([1, 2], seed=start + index, do_sample=True, **sampling) for index in range(256)]
        for token in sampler.sample(logits.expand(256, -1).contiguous(), ones):
            assert isinstance(token, Token)
            counts[token.id] += 1
    one = sequence([1, 2], **sampling)
    expected = reference.warped(reference.processed(logits[0], one), one.sampling).exp().numpy() * draws
    likely = expected > 5
    assert counts[expected == 0].sum() == 0
    rest = max(expected[~likely].sum(), 1e-9)
    assert counts[~likely].sum() < rest + 6 * math.sqrt(rest) + 3
    freedom = likely.sum() - 1
    statistic = ((counts - expected)[likely] ** 2 / expected[likely]).sum()
    assert freedom >= 3 and statistic < freedom + 6 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("width", [1, 31, 256, 1000, 8192, 8193, 30001])
@pytest.mark.parametrize("count", [1, 5, 256])
def test_ranked_equals_a_full_sort(width, count):
    count = min(count, width)
    generator = torch.Generator().manual_seed(width)
    rows = torch.randn(4, width, generator=generator) * 10
    rows[1] = rows[1].round()  # ties
    rows[2] = torch.where(rows[2] > 0, 0.0, -0.0)  # equal, though the bits differ
    rows[3, ::2] = -math.inf
    values, ids = ranked(rows, count)
    for row in range(4):
        expected = np.lexsort((np.arange(width), -rows[row].double().numpy()))[:count]
        assert ids[row].tolist() == expected.tolist()
        assert torch.equal(values[row], rows[row, ids[row]])


def test_ranked_puts_nan_first():
    rows = torch.randn(2, 20000)
    rows[0, 12345] = torch.tensor(0xFFC00000 - (1 << 32), dtype=torch.int32).view(torch.float32)  # sign bit set
    rows[1, 7] = math.nan
    assert ranked(rows, 3)[1][:, 0].tolist() == [12345, 7]


@pytest.mark.parametrize("width", [1, 5, 256, 257, 4000])
def test_pick_inverts_the_cumulative_weights(width):
    generator = torch.Generator().manual_seed(width)
    weights = torch.rand(200, width, generator=generator)
    weights[:, 1::3] = 0
    uniform = torch.rand(200, generator=generator, dtype=torch.float64)
    uniform[0], uniform[1] = 0.0, 1.0 - 2.0**-53
    cumulative = weights.double().cumsum(-1)
    low = torch.cat([torch.zeros(200, 1), cumulative[:, :-1]], -1) / cumulative[:, -1:]
    for ids in (pick(weights, uniform), pick_among(weights.double(), uniform)):
        column = ids.unsqueeze(-1)
        assert (weights.gather(-1, column) > 0).all()
        assert (low.gather(-1, column).squeeze(-1) <= uniform + 1e-6).all()
        assert ((cumulative / cumulative[:, -1:]).gather(-1, column).squeeze(-1) >= uniform - 1e-6).all()
    assert torch.equal(
        pick_among(weights.double(), uniform),
        torch.searchsorted(cumulative / cumulative[:, -1:], uniform.unsqueeze(-1), right=True)
        .squeeze(-1)
        .clamp(max=int((weights[0] > 0).nonzero().max())),
    )


def test_pick_never_takes_a_weightless_end():
    weights = torch.zeros(3, 1000)
    weights[0, 0] = weights[1, 500] = 1e-30
    weights[2, 998] = 1.0
    uniform = torch.tensor([1 - 2.0**-53] * 3, dtype=torch.float64)
    assert pick(weights, uniform).tolist() == [0, 500, 998]
    assert pick(weights, uniform * 0).tolist() == [0, 500, 998]


def test_pick_stays_in_its_block_when_rounding_is_coarse():
    # A last block that weighs next to nothing: where u falls in it is all rounding error.
    for exponent in range(-16, -6):
        weights = torch.rand(500, 300, generator=torch.Generator().manual_seed(-exponent)) + 0.5
        weights[:, 256:] *= 10.0**exponent
        weights[:, 290:] = 0
        ids = pick(weights, torch.full((500,), 1 - 2.0**-53, dtype=torch.float64))
        assert (weights.gather(-1, ids.unsqueeze(-1)) > 0).all()


def test_row_sums():
    rows = torch.rand(3, 777, generator=torch.Generator().manual_seed(0))
    assert row_sums(rows).tolist() == pytest.approx(rows.double().sum(-1).tolist(), rel=1e-6)
