"""Whatever the parameters and logits: each row gets a token its own distribution allows, alone or in a batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.engine.sampling_reference import sequence, uniform
from tgi.engine.sampler import Sampler
from tgi.messages import Sampling, Token

pytestmark = pytest.mark.usefixtures("vocabulary")

VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 5.0, 30.0, -math.inf, 1e-30, 1e30, -1e30, 3e38, -3e38]) | st.floats(
    -50, 50, width=32
)


@st.composite
def rows(draw, width):
    """Logits of one row: a few values, each of which may fill many places (ties)."""
    values = draw(st.lists(VALUES, min_size=1, max_size=8))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    row = np.array(values, dtype=np.float32)[generator.integers(len(values), size=width)]
    if draw(st.booleans()):
        row = row + generator.standard_normal(width).astype(np.float32)
    row[draw(st.integers(0, width - 1))] = draw(st.floats(-40, 40, width=32))  # at least one is finite
    return row


def samplings():
    return st.fixed_dictionaries(
        {
            "do_sample": st.booleans(),
            "temperature": st.sampled_from([1.0, 0.7, 2.0, 1e-6, 1e6, 1e-300, 1e38]) | st.floats(0.05, 20),
            "top_k": st.sampled_from([0, 0, 1, 2, 7, 255, 256, 257, 10**9, 2**62]),
            "top_p": st.sampled_from([1.0, 1.0, 1e-9, 0.5, 0.9, 0.999999, 1 - 1e-16]) | st.floats(0.01, 0.99),
            "typical_p": st.sampled_from([1.0, 1.0, 1e-9, 0.3, 0.95, 0.999999]) | st.floats(0.01, 0.99),
            "top_n_tokens": st.sampled_from([0, 0, 1, 5, 2000]),
            "raw_logprobs": st.booleans(),
        }
    )


def allowed(row: np.ndarray, sampling: Sampling) -> tuple[np.ndarray, bool]:
    """Probabilities after the warpers [vocabulary] from plain sorts, and whether no decision was a close one."""
    order = np.lexsort((np.arange(len(row)), -row.astype(np.float64)))
    with np.errstate(over="ignore"):
        scaled = (row[order].astype(np.float64) - float(row.max())) / sampling.temperature
    clear = True
    kept = scaled > -np.inf
    if 0 < sampling.top_k < len(row):
        kept &= row[order] >= row[order][sampling.top_k - 1]
    weights = np.where(kept, np.exp(scaled), 0.0)
    if sampling.top_p < 1:
        before = (np.cumsum(weights) - weights) / weights.sum()
        clear &= bool(np.abs(before[1:] - sampling.top_p).min(initial=1.0) > 1e-5)
        kept &= before < sampling.top_p
        weights = np.where(kept, weights, 0.0)
    if sampling.typical_p < 1:
        probabilities = weights / weights.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            surprise = -np.log(probabilities)
            entropy = np.nansum(probabilities * surprise)
        distance = np.where(probabilities > 0, np.abs(surprise - entropy), np.inf)
        nearest = np.argsort(distance, kind="stable")
        cumulative = np.cumsum(probabilities[nearest])
        limit = distance[nearest[min(int((cumulative < sampling.typical_p).sum()), len(row) - 1)]]
        clear &= bool(np.abs(cumulative - sampling.typical_p).min() > 1e-5)
        # Tokens as far above the entropy as others are below it could fall on either side.
        gaps = np.abs(distance[np.isfinite(distance)] - limit)
        clear &= not bool(((gaps > 0) & (gaps < 1e-4 * (1 + limit))).any())
        weights = np.where(distance <= limit, weights, 0.0)
    result = np.zeros(len(row))
    result[order] = weights / weights.sum()
    return result, clear


# Not shrunk: a failing case is printed as drawn, and shrinking such rows takes minutes.
@settings(max_examples=150, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(data=st.data(), width=st.sampled_from([1, 5, 300, 9000]))
def test_any_parameters_any_logits(data, width):
    count = data.draw(st.integers(1, 4))
    logits = torch.from_numpy(np.stack([data.draw(rows(width)) for _ in range(count)]))
    sequences = [
        sequence(
            [0] * data.draw(st.integers(1, 9)), seed=data.draw(st.integers(0, 2**64 - 1)), **data.draw(samplings())
        )
        for _ in range(count)
    ]
    sampler = Sampler(width, torch.device("cpu"))
    together = sampler.sample(logits, sequences)
    for index, (token, row, one) in enumerate(zip(together, logits, sequences, strict=True)):
        assert isinstance(token, Token), (token, one.sampling)
        assert sampler.sample(logits[index : index + 1], [one]) == [token]
        check(token, row.numpy(), one)


def check(token: Token, row: np.ndarray, one) -> None:
    sampling = one.sampling
    assert token.logprob <= 0 and len(token.top) <= sampling.top_n_tokens
    listed, values = [identity for identity, _ in token.top], [logprob for _, logprob in token.top]
    falls = np.diff(row[listed])
    # Dividing by the temperature can round two logits to one, or to zero.
    assert (falls <= 3e-7 * np.abs(row[listed][1:]) + 1e-29).all()
    assert sampling.temperature != 1.0 or listed == sorted(listed, key=lambda identity: (-row[identity], identity))
    assert values == sorted(values, reverse=True) and all(-math.inf < value <= 0 for value in values)
    assert row[token.id] > -np.inf

    probabilities, clear = allowed(row, sampling)
    if not clear:
        return
    assert probabilities[token.id] > 0, (token, sampling)
    if sampling.do_sample:
        cumulative = np.cumsum(probabilities)
        number = uniform(one.seed, len(one.token_ids))
        below = cumulative[token.id] - probabilities[token.id]
        assert below - 1e-5 <= number <= cumulative[token.id] + 1e-5, (token, sampling)
    elif sampling.typical_p == 1.0:
        assert token.id == int(row.argmax())
    if sampling.raw_logprobs:
        with np.errstate(over="ignore"):
            expected = torch.from_numpy(row).double().log_softmax(-1)[token.id].item()
    else:
        expected = math.log(probabilities[token.id])
    # Far from the best only the relative error is small.
    assert math.isclose(token.logprob, expected, rel_tol=1e-5, abs_tol=1e-4), (token, expected, sampling)
