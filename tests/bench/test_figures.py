"""Percentiles, intervals and figures against numpy, brute force and cases with known answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi.bench.intervals import covered, overlaps, tokens_within
from tgi.bench.load import Level, Load
from tgi.bench.percentiles import element, percentile
from tgi.bench.record import Record
from tgi.bench.summary import Figures, Objectives, decode_rate, summarize, warnings

VALUES = st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=60)
SPANS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: (min(pair), max(pair))), max_size=12
)
GRID = np.arange(0, 40, 0.5) + 0.25  # no span begins or ends on it


@given(VALUES, st.floats(0, 100))
def test_percentile_is_numpys(values: list[float], percent: float) -> None:
    assert percentile(sorted(values), percent) == pytest.approx(np.percentile(values, percent), rel=1e-9, abs=1e-9)


@given(VALUES, st.sampled_from([50, 90, 99]))
def test_tgis_percentile_is_an_element(values: list[float], percent: int) -> None:
    assert element(sorted(values), percent) == sorted(values)[math.floor(percent * len(values) / 100)]


def test_percentiles_of_nothing() -> None:
    assert math.isnan(percentile([], 50)) and math.isnan(element([], 50))


@given(SPANS)
def test_covered_is_the_length_of_the_union(spans: list[tuple[int, int]]) -> None:
    inside = sum(any(low <= place < high for low, high in spans) for place in GRID)
    assert covered(spans) == pytest.approx(inside * 0.5)


@given(SPANS, st.integers(1, 4))
def test_overlaps_are_where_so_many_spans_are(spans: list[tuple[int, int]], count: int) -> None:
    found = overlaps(spans, count)
    for place in GRID:
        expected = sum(low <= place < high for low, high in spans) == count
        assert any(low <= place < high for low, high in found) == expected
    for low, high in found:  # never across the end of a span: `decode_rate` counts on it
        assert all(not low < edge < high for span in spans for edge in span if span[0] < span[1])


@given(
    st.lists(st.floats(0.01, 5), min_size=1, max_size=20),
    st.lists(st.integers(1, 4), min_size=20, max_size=20),
    st.floats(-1, 60),
    st.floats(0, 60),
)
def test_tokens_within_is_linear_interpolation(gaps: list[float], counts: list[int], low: float, length: float) -> None:
    times = list(np.cumsum(gaps))
    counts = counts[: len(times)]
    made = np.cumsum([0, *counts[1:]])
    expected = np.interp(low + length, times, made) - np.interp(low, times, made)
    assert tokens_within(times, counts, (low, low + length)) == pytest.approx(expected, abs=1e-6)


def record(sent: float, times: Sequence[float], prompt: int = 10, **fields: float) -> Record:
    return Record(prompt, len(times), sent, list(times), [1.0] * len(times), times[-1], True, len(times), **fields)


def level(records: list[Record], concurrency: int, cpu: float = 0.1, delays: Sequence[float] = ()) -> Level:
    ended = max(one.ended for one in records)
    load = Load(concurrency, requests=len(records))
    return Level(load, records, 0.0, ended, cpu, list(delays))


def stream(sent: float, first: float, tokens: int, step: float) -> Record:
    return record(sent, [first + number * step for number in range(tokens)])


def test_two_streams_in_step() -> None:
    """Steps of 0.1 s, the streams' tokens 0.02 s apart: 2 tokens a step are 20 a second, whatever the window cuts."""
    row = summarize(level([stream(0, 0.5, 11, 0.1), stream(0, 0.52, 11, 0.1)], 2))
    assert row.decode_tps == pytest.approx(20)
    assert row.steady_s == pytest.approx(0.98)  # from 0.52 to 1.5
    assert row.prefill_tps == pytest.approx(20 / 0.52)
    assert row.total_tps == pytest.approx(22 / 1.52)
    assert row.ttft_ms.p50 == pytest.approx(510) and row.ttft_ms.max == pytest.approx(520)
    assert row.tpot_ms.mean == pytest.approx(100) and row.itl_ms.p99 == pytest.approx(100)
    assert row.e2e_ms.max == pytest.approx(1520)
    assert row.client_cpu == pytest.approx(0.1 / 1.52)
    assert (row.requests, row.ok, row.short, row.errors) == (2, 2, 0, {})
    assert row.mean_concurrency == pytest.approx((1.5 + 1.52) / 1.52)
    assert warnings([row]) == []


def test_decode_is_counted_only_while_all_decode() -> None:
    """The second stream's prefill slows the first one down; that belongs to prefill."""
    slow = [0.0, 1.0, 2.0]  # while the other waits for its first token
    first = record(0.0, [*slow, 2.1, 2.2, 2.3, 2.4])
    second = record(0.0, [2.0, 2.1, 2.2, 2.3, 2.4])
    rate, seconds = decode_rate([first, second], 2)
    assert seconds == pytest.approx(0.4) and rate == pytest.approx(20)


def test_streams_one_after_the_other_have_no_common_decode() -> None:
    rate, seconds = decode_rate([stream(0, 1, 5, 0.1), stream(2, 3, 5, 0.1)], 2)
    assert math.isnan(rate) and seconds == 0


def test_a_rate_has_no_steady_decode() -> None:
    records = [stream(0, 1, 5, 0.1)]
    row = summarize(Level(Load(rate=2.0, requests=1), records, 0, 2, 0.1, []))
    assert math.isnan(row.decode_tps) and row.load == "2/s"


def test_many_waves_are_all_steady() -> None:
    waves = [stream(wave * 2.0, wave * 2.0 + 0.5, 11, 0.1) for wave in range(5) for _ in range(3)]
    rate, seconds = decode_rate(waves, 3)
    assert seconds == pytest.approx(5.0) and rate == pytest.approx(30)


def test_several_tokens_in_a_piece() -> None:
    one = Record(10, 9, 0.0, [1.0, 1.2, 1.4], [3.0, 3.0, 3.0], 1.4, True, 9)
    row = summarize(level([one], 1))
    assert row.tokens_per_piece == 3
    assert row.tpot_ms.p50 == pytest.approx(400 / 8)
    assert row.itl_ms.p50 == pytest.approx(200)  # what a reader waits
    assert row.decode_tps == pytest.approx(15)  # 6 tokens in 0.4 s: those of the first piece have no beginning


def test_objectives_and_goodput() -> None:
    good, slow = stream(0, 0.1, 11, 0.1), stream(0, 0.9, 11, 0.1)
    failed = Record(10, 5, 0.0, error=("HTTP 429", "Model is overloaded"))
    rows = level([good, slow, failed], 2)
    assert summarize(rows, Objectives(ttft=500)).goodput == pytest.approx(1 / 1.9)
    assert summarize(rows, Objectives(tpot=99)).goodput == 0
    assert summarize(rows, Objectives(e2e=2000, tpot=101)).goodput == pytest.approx(2 / 1.9)
    assert summarize(rows, Objectives()).goodput is None


def test_failures_are_counted_by_kind_and_told() -> None:
    errors = [("HTTP 429", "Model is overloaded"), ("timeout", "no end"), ("HTTP 429", "Model is overloaded")]
    records = [Record(10, 5, 0.0, ended=1.0, error=error) for error in errors]
    row = summarize(level([*records, stream(0, 1, 5, 0.1)], 1))
    assert row.errors == {"HTTP 429": 2, "timeout": 1} and row.ok == 1 and row.requests == 4
    assert warnings([row]) == ["1: 3 of 4 failed (2 x HTTP 429, 1 x timeout): Model is overloaded"]


def test_nothing_but_failures_gives_no_figure() -> None:
    row = summarize(level([Record(10, 5, 0.0, ended=1.0, error=("timeout", "x"))], 1))
    for value in (row.prefill_tps, row.decode_tps, row.prompt_tokens, row.ttft_ms.p50, row.tpot_ms.mean):
        assert math.isnan(value)


def rows_with(**changes: object) -> list[Figures]:
    import msgspec

    return [msgspec.structs.replace(summarize(level([stream(0, 1, 5, 0.1)], 1)), **changes)]


def test_a_client_at_its_limit_is_told() -> None:
    assert "more than 70% of a core at 1" in warnings(rows_with(client_cpu=0.71))[0]
    assert "woken up to 12 ms late (p99) at 1" in warnings(rows_with(client_delay_p99_ms=12.0))[0]
    assert "1 of 1 answers had fewer tokens" in warnings(rows_with(short=1))[0]


def test_delays_and_busy_time_come_from_the_level() -> None:
    row = summarize(level([stream(0, 1, 11, 0.1)], 1, cpu=1.8, delays=[0.0] * 50 + [0.02] * 50))
    assert row.client_cpu == pytest.approx(0.9) and row.client_delay_p99_ms == pytest.approx(20)
