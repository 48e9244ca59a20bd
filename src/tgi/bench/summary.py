"""The figures of one level. docs/benchmark.md says what each means and where it misleads.

Owns the definitions.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import msgspec

from tgi.bench.intervals import covered, overlaps, tokens_within
from tgi.bench.load import Level
from tgi.bench.percentiles import percentile
from tgi.bench.record import Record

BUSY_CLIENT = 0.7
"""Share of a core from which on the client may be what limits."""
LATE_CLIENT_S = 0.005
SHORTEST_STEADY_S = 0.01


class Spread(msgspec.Struct, frozen=True):
    """Milliseconds; NaN (null in JSON) where there is no value."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        ordered = sorted(value * 1e3 for value in seconds)
        mean = math.fsum(ordered) / len(ordered) if ordered else math.nan
        return cls(mean, *(percentile(ordered, percent) for percent in (50, 90, 99, 100)))


class Objectives(msgspec.Struct, frozen=True):
    """Limits in milliseconds that make a request a good one; None: any value is."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None

    def __bool__(self) -> bool:
        return any(limit is not None for limit in (self.ttft, self.tpot, self.e2e))

    def met(self, record: Record) -> bool:
        values = ((self.ttft, record.ttft), (self.tpot, record.tpot), (self.e2e, record.e2e))
        return record.ok and all(limit is None or value is None or value * 1e3 <= limit for limit, value in values)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table. Rates are per second; NaN (null in JSON) where nothing could be measured."""

    load: str
    concurrency: int | None
    rate: float | None
    requests: int
    """That came to an end, well or not."""
    ok: int
    errors: dict[str, int]
    """Kind -> how many."""
    first_error: str | None
    short: int
    """Answers with fewer tokens than asked for."""
    wall_s: float
    prompt_tokens: float
    """Mean of the good requests, as counted by the server."""
    output_tokens: float
    prefill_tps: float
    """Prompt tokens over the time in which any request waited for its first token."""
    decode_tps: float
    """Tokens after the first, in the time in which all streams decoded."""
    steady_s: float
    """How long that was."""
    total_tps: float
    """Generated tokens over the time from the first request to the last token."""
    request_rate: float
    mean_concurrency: float
    ttft_ms: Spread
    tpot_ms: Spread
    itl_ms: Spread
    e2e_ms: Spread
    tokens_per_piece: float
    """Tokens that came in one read of the socket; above 1, gaps are between such pieces."""
    goodput: float | None
    """Requests a second that met the objectives; None without objectives."""
    client_cpu: float
    """Share of one core."""
    client_delay_p99_ms: float
    stopped: bool
    """Ended early by the user."""


def summarize(level: Level, objectives: Objectives | None = None) -> Figures:
    """All figures of a level."""
    good = [record for record in level.records if record.ok]
    failed = [record.error for record in level.records if record.error is not None]
    began = min((record.sent for record in good), default=level.began)
    span = max((record.last for record in good), default=level.ended) - began
    tokens = math.fsum(record.tokens for record in good)
    decode, steady = decode_rate(good, level.load.concurrency)
    goodput = sum(objectives.met(record) for record in good) / span if objectives and span > 0 else None
    return Figures(
        load=level.load.name,
        concurrency=level.load.concurrency,
        rate=level.load.rate,
        requests=len(level.records),
        ok=len(good),
        errors=dict(Counter(kind for kind, _ in failed)),
        first_error=failed[0][1] if failed else None,
        short=sum(record.tokens < record.wanted_tokens for record in good),
        wall_s=level.wall,
        prompt_tokens=_mean([record.prompt_tokens for record in good]),
        output_tokens=_mean([record.tokens for record in good]),
        prefill_tps=_rate(sum(record.prompt_tokens for record in good), covered((r.sent, r.first) for r in good)),
        decode_tps=decode,
        steady_s=steady,
        total_tps=_rate(tokens, span),
        request_rate=_rate(len(good), span),
        mean_concurrency=_rate(math.fsum(record.e2e for record in good), span),
        ttft_ms=Spread.of([record.ttft for record in good]),
        tpot_ms=Spread.of([record.tpot for record in good if record.tpot is not None]),
        itl_ms=Spread.of(list(chain.from_iterable(record.gaps for record in good))),
        e2e_ms=Spread.of([record.e2e for record in good]),
        tokens_per_piece=_rate(tokens, sum(len(record.times) for record in good)),
        goodput=goodput,
        client_cpu=_rate(level.cpu_s, level.wall),
        client_delay_p99_ms=percentile(sorted(level.delays), 99) * 1e3,
        stopped=level.stopped,
    )


def decode_rate(records: Sequence[Record], concurrency: int | None) -> tuple[float, float]:
    """Tokens a second while exactly `concurrency` streams decode, and for how many seconds they did.

    NaN when that was never so for a while worth measuring, or nobody said how many there are.
    """
    if concurrency is None:
        return math.nan, 0.0
    spans = overlaps([(record.first, record.last) for record in records], concurrency)
    seconds = math.fsum(high - low for low, high in spans)
    if seconds < SHORTEST_STEADY_S:
        return math.nan, seconds
    starts = [low for low, _ in spans]
    tokens = math.fsum(
        tokens_within(record.times, record.counts, span)
        for record in records  # a span lies within a stream or outside of it, never across its ends
        for span in spans[bisect_left(starts, record.first) : bisect_left(starts, record.last)]
    )
    return tokens / seconds, seconds


def warnings(rows: Sequence[Figures]) -> list[str]:
    """What a reader must know before believing the rows."""
    found = []
    busy = [row.load for row in rows if row.client_cpu >= BUSY_CLIENT]
    late = [row for row in rows if row.client_delay_p99_ms >= LATE_CLIENT_S * 1e3 and row.load not in busy]
    if busy:
        found.append(
            f"the client used more than {BUSY_CLIENT:.0%} of a core at {', '.join(busy)}: it may be what limits there"
        )
    if late:
        worst = max(row.client_delay_p99_ms for row in late)
        found.append(
            f"the client was woken up to {worst:.0f} ms late (p99) at {', '.join(row.load for row in late)}: it shares "
            f"its cores with something, and short latencies are no better known than that"
        )
    for row in rows:
        if row.errors:
            kinds = ", ".join(f"{count} x {kind}" for kind, count in row.errors.items())
            found.append(
                f"{row.load}: {sum(row.errors.values())} of {row.requests} failed ({kinds}): {row.first_error}"
            )
        if row.short:
            found.append(
                f"{row.load}: {row.short} of {row.ok} answers had fewer tokens than asked for; does the server honour "
                f"ignore_eos, and is its context long enough?"
            )
    return found


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _rate(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 else math.nan
