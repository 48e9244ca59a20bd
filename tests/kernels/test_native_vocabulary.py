"""Ranking, mass and picks over the vocabulary against torch and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.kernels.native_levels import libraries, open_level
from tgi.kernels.native.library import Pool
from tgi.kernels.native.vocabulary import NativeVocabulary
from tgi.kernels.reference.vocabulary import TorchVocabulary, ranked

SHAPES = [(1, 1), (3, 15), (2, 64), (7, 1000), (16, 50257)]


@pytest.fixture(params=libraries())
def vocabulary(request) -> NativeVocabulary:
    return NativeVocabulary(Pool(open_level(request.param), 3))


def random_logits(rows: int, size: int) -> torch.Tensor:
    """With ties, zeros of both signs and impossible tokens."""
    logits = (10 * torch.randn((rows, size))).round(decimals=1)
    logits[:, ::7] = -torch.inf if size > 7 else 0.0
    return logits


@pytest.mark.parametrize(("rows", "size"), SHAPES)
@pytest.mark.parametrize("count", [1, 5, 256, 10**6])
def test_rank(vocabulary, rows, size, count):
    logits = random_logits(rows, size)
    expected = ranked(logits, min(count, size))
    values, ids = vocabulary.rank(logits, min(count, size))
    assert torch.equal(ids, expected[1]) and torch.equal(values, expected[0])


def test_rank_of_unusual_rows(vocabulary):
    logits = random_logits(6, 5000)
    logits[0], logits[1], logits[2, 4999] = 3.0, -torch.inf, torch.inf
    logits[3, [70, 4000]], logits[4, 63] = torch.nan, -torch.nan
    for count in (1, 300):
        values, ids = vocabulary.rank(logits, count)
        expected = ranked(logits, count)
        assert torch.equal(ids, expected[1])
        torch.testing.assert_close(values, expected[0], rtol=0, atol=0, equal_nan=True)


def test_best_and_mass(vocabulary):
    for rows, size in [*SHAPES, (2, 64), (0, 9)]:  # fewer rows after more: memory is kept
        logits = random_logits(rows, size)
        _, ids, masses = vocabulary.rank_and_mass(logits, 1)
        assert vocabulary.best_and_mass(logits) == (ids[:, 0].tolist(), masses.tolist())
        best, masses = TorchVocabulary().best_and_mass(logits)
        assert vocabulary.best_and_mass(logits) == (best, pytest.approx(masses, rel=1e-5, abs=1e-6))
    logits = random_logits(4, 5000)
    logits[0, 70], logits[1], logits[2, 4999] = torch.nan, -torch.inf, torch.inf
    best, masses = vocabulary.best_and_mass(logits)
    assert best[:3] == [70, 0, 4999] and [math.isnan(mass) for mass in masses] == [True, True, True, False]


@pytest.mark.parametrize(("rows", "size"), SHAPES)
def test_log_mass(vocabulary, rows, size):
    logits = random_logits(rows, size)
    divisors = torch.rand(rows) + 0.3
    for by in (None, divisors):
        scaled = logits.double() if by is None else logits.double() / by.unsqueeze(-1).double()
        mass = vocabulary.log_mass(logits, logits.argmax(-1), by)
        expected = scaled.logsumexp(-1) - scaled.amax(-1)
        torch.testing.assert_close(mass, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("rows", "size"), SHAPES)
def test_rank_and_mass_are_those_of_their_own(vocabulary, rows, size):
    logits = random_logits(rows, size)
    logits[rows // 2, size // 2] = torch.nan
    for count in (1, min(3, size)):
        values, ids, mass = vocabulary.rank_and_mass(logits, count)
        alone = vocabulary.rank(logits, count)
        torch.testing.assert_close(values, alone[0], rtol=0, atol=0, equal_nan=True)
        assert torch.equal(ids, alone[1])
        torch.testing.assert_close(mass, vocabulary.log_mass(logits, ids[:, 0]), rtol=0, atol=0, equal_nan=True)


def test_no_number_gives_no_number(vocabulary):
    logits = torch.randn((4, 700))
    logits[0, 3], logits[1, 699], logits[2] = torch.nan, torch.inf, -torch.inf
    best = vocabulary.rank(logits, 1)[1][:, 0]
    assert vocabulary.log_mass(logits, best).isnan().tolist() == [True, True, True, False]
    assert vocabulary.pick(logits, torch.full((4,), 0.5))[1].isnan().tolist() == [True, True, True, False]


@pytest.mark.parametrize(("rows", "size"), SHAPES)
def test_pick_inverts_the_cumulative_distribution(vocabulary, rows, size):
    logits = random_logits(rows, size)
    divisors = torch.rand(rows) + 0.5
    uniform = torch.rand(rows, dtype=torch.float64)
    uniform[0] = 1 - 2.0**-53
    ids, logprobs = vocabulary.pick(logits, uniform, divisors)
    scaled = (logits.double() / divisors.unsqueeze(-1).double()).numpy()
    weights = np.exp(scaled - scaled.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    for row, (token, logprob, u) in enumerate(zip(ids.tolist(), logprobs.tolist(), uniform.tolist(), strict=True)):
        above = weights[row, : token + 1].sum()
        assert above - weights[row, token] - 1e-6 <= u <= above + 1e-6
        assert weights[row, token] > 0 and math.isclose(logprob, math.log(weights[row, token]), abs_tol=1e-4)


def test_an_impossible_token_is_never_picked(vocabulary):
    logits = torch.full((3, 600), -torch.inf)
    logits[:, 257] = 0.0
    for u in (0.0, 0.5, 1 - 2.0**-53):
        assert vocabulary.pick(logits, torch.full((3,), u, dtype=torch.float64))[0].tolist() == [257] * 3


def test_rows_on_their_own(vocabulary):
    logits, uniform = torch.randn((5, 3001)), torch.rand(5, dtype=torch.float64)
    best = logits.argmax(-1)
    mass, (ids, logprobs) = vocabulary.log_mass(logits, best), vocabulary.pick(logits, uniform)
    for row in range(5):
        one = slice(row, row + 1)
        assert torch.equal(vocabulary.log_mass(logits[one], best[one]), mass[one])
        alone = vocabulary.pick(logits[one], uniform[one])
        assert torch.equal(alone[0], ids[one]) and torch.equal(alone[1], logprobs[one])


def random_masks(rows: int, size: int) -> np.ndarray:
    """Wide and narrow ones, and one that allows nothing; bits beyond the vocabulary are set."""
    shares = np.random.default_rng().choice([0.0, 0.0005, 0.3, 0.98, 1.0], (rows, 1))
    bits = np.random.default_rng().random((rows, -(-size // 32) * 32)) < shares
    bits[:, size:] = True
    return np.packbits(bits, axis=1, bitorder="little").view(np.uint32)


@pytest.mark.parametrize(("rows", "size"), SHAPES)
def test_masks(vocabulary, rows, size):
    logits = random_logits(rows, size)
    for seed in range(6):
        some = sorted(torch.randperm(rows)[: seed % rows + 1].tolist())
        masks = random_masks(len(some), size)
        expected, masked = logits.clone(), logits.clone()
        TorchVocabulary().mask(expected, some, masks)
        vocabulary.mask(masked, some, masks)
        assert torch.equal(masked, expected)
        ids, values, masses = vocabulary.best_allowed(logits, some, masks, with_masses=True)
        of = TorchVocabulary().best_allowed(logits, some, masks, with_masses=True)
        assert (ids, values) == of[:2]
        assert masses == pytest.approx(of[2], rel=1e-5, abs=1e-6, nan_ok=True)
        assert vocabulary.best_allowed(logits, some, masks, with_masses=False) == (ids, values, [])
        best, whole = vocabulary.best_and_mass(masked[some])
        assert ids == best and repr(masses) == repr(whole)  # bit for bit


def test_masks_of_unusual_rows(vocabulary):
    logits = random_logits(5, 5000)
    logits[0, [70, 4000]], logits[1, 4999], logits[2] = torch.nan, torch.inf, -torch.inf
    logits[3, 1234], logits[4, 17] = torch.nan, torch.inf
    masks = np.full((5, 157), 0xFFFFFFFF, np.uint32)
    masks[3, 1234 // 32] = masks[4, 0] = 0  # what is banned does not count
    expected, masked = logits.clone(), logits.clone()
    TorchVocabulary().mask(expected, range(5), masks)
    vocabulary.mask(masked, range(5), masks)
    torch.testing.assert_close(masked, expected, rtol=0, atol=0, equal_nan=True)
    ids, values, masses = vocabulary.best_allowed(logits, range(5), masks, with_masses=True)
    assert ids[:3] == [70, 4999, 0] and repr(values[:3]) == "[nan, inf, -inf]"
    assert [math.isnan(mass) for mass in masses] == [True, True, True, False, False]
    assert ids[3:] == expected[3:].argmax(-1).tolist()
