"""What streams and repeated prompts feel over HTTP: the pace while a long prompt is read, and prefix hits.

Two experiments against a launcher with a random-weight checkpoint (or --url):

    pace     16 stream; a prompt of 2,000 tokens arrives. Gaps between tokens until its first token, p99 over
             the median gap before. Target: below 3.
    prefix   a prompt of 1,000 tokens, sent twice, and once more with another ending. Time to first token of
             the first over the later ones. Target: at least 10.

Medians over repetitions.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import statistics
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.checkpoints import SHAPES, ensure
from benchmarks.serving import server
from tgi.bench.dialects import Ask
from tgi.bench.http import Client
from tgi.bench.percentiles import percentile
from tgi.bench.prompts import text
from tgi.bench.record import Record
from tgi.bench.target import Target, find

SETTLE_TOKENS = 40
"""Tokens of every stream before the long prompt is sent: the gaps before are measured over the later half."""
PACE_TARGET, PREFIX_TARGET = 3.0, 10.0


@dataclass
class Pace:
    """One arrival of a long prompt among streams; milliseconds."""

    before_p50: float
    during_p50: float
    during_p99: float
    ttft: float
    alone: float
    """Time to first token of such a prompt on an idle server."""

    @property
    def ratio(self) -> float:
        return self.during_p99 / self.before_p50


def ask(target: Target, rng: random.Random, prompt: int, new: int) -> Ask:
    """Distinct words, cut by the server to the exact number of tokens (it keeps the last ones)."""
    return Ask(text(rng, target.scale.enough_words(prompt)), prompt, new, cut=True)


async def pace(target: Target, rng: random.Random, streams: int, prompt: int, long_prompt: int) -> Pace:
    alone = await sent(target, ask(target, rng, long_prompt, 1))
    records: list[Record] = []
    tasks = [
        asyncio.create_task(target.send(ask(target, rng, prompt, 1000), begin=records.append)) for _ in range(streams)
    ]
    while len(records) < streams or min(len(record.times) for record in records) < SETTLE_TOKENS:
        if any(task.done() for task in tasks):
            raise SystemExit("a stream ended before it began: is max-total-tokens too small?")
        await asyncio.sleep(0.01)
    began = max(record.times[SETTLE_TOKENS // 2] for record in records)
    late = await sent(target, ask(target, rng, long_prompt, 1))
    await asyncio.sleep(0.1)  # the gaps that end with the first token of the long prompt
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    gaps = [gap for record in records for gap in pairwise(record.times)]
    before = [1e3 * (second - first) for first, second in gaps if first >= began and second <= late.sent]
    during = [1e3 * (second - first) for first, second in gaps if second > late.sent and first < late.first]
    return Pace(
        statistics.median(before),
        statistics.median(during),
        percentile(sorted(during), 99),
        late.ttft * 1e3,
        alone.ttft * 1e3,
    )


async def prefix(target: Target, rng: random.Random, prompt: int) -> tuple[float, float, float]:
    """Milliseconds to the first token: new prompt, the same again, the same with another ending."""
    shared = text(rng, target.scale.enough_words(prompt))
    first = await sent(target, Ask(shared, prompt, 4, cut=True))
    again = await sent(target, Ask(shared, prompt, 4, cut=True))
    head = text(rng, target.scale.words(prompt))
    await sent(target, Ask(f"{head} {text(rng, 4)}", prompt + 4, 4))
    other = await sent(target, Ask(f"{head} {text(rng, 4)}", prompt + 4, 4))
    return first.ttft * 1e3, again.ttft * 1e3, other.ttft * 1e3


async def sent(target: Target, asked: Ask) -> Record:
    record = await target.send(asked)
    if record.error is not None:
        raise SystemExit(f"a request failed: {record.error[1]}")
    return record


async def measure(url: str, arguments: argparse.Namespace) -> bool:
    rng = random.Random(secrets.randbits(64))
    console = Console(width=120)
    async with Client(url) as client:
        target = await find(client, text=lambda words: text(rng, words))
        for _ in range(2):  # connections, first steps
            await sent(target, ask(target, rng, arguments.prompt_tokens, 16))
        reached = True
        if arguments.only != "pace":
            reached &= await report_prefix(target, rng, arguments, console)
        if arguments.only != "prefix":
            reached &= await report_pace(target, rng, arguments, console)
    return reached


async def report_prefix(target: Target, rng: random.Random, arguments: argparse.Namespace, console: Console) -> bool:
    rows = [await prefix(target, rng, arguments.shared_tokens) for _ in range(arguments.repetitions)]
    new, again, other = (statistics.median(column) for column in zip(*rows, strict=True))
    ratio = statistics.median(row[0] / row[1] for row in rows)
    table = Table(title=f"Prefix cache, {arguments.shared_tokens} tokens: ms to first token, median of {len(rows)}")
    for column in ("new prompt", "the same again", "another ending", "new / again", "new / other", "target"):
        table.add_column(column, justify="right")
    table.add_row(
        f"{new:.1f}", f"{again:.1f}", f"{other:.1f}", f"{ratio:.1f}", f"{new / other:.1f}", f">= {PREFIX_TARGET:g}"
    )
    console.print(table)
    return ratio >= PREFIX_TARGET


async def report_pace(target: Target, rng: random.Random, arguments: argparse.Namespace, console: Console) -> bool:
    rows = [
        await pace(target, rng, arguments.streams, arguments.prompt_tokens, arguments.long_tokens)
        for _ in range(arguments.repetitions)
    ]
    table = Table(
        title=f"A prompt of {arguments.long_tokens} tokens arrives while {arguments.streams} stream: gaps in ms"
    )
    for column in ("before p50", "during p50", "during p99", "p99 / before", "TTFT of it", "alone", "target"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row.before_p50:.1f}",
            f"{row.during_p50:.1f}",
            f"{row.during_p99:.1f}",
            f"{row.ratio:.2f}",
            f"{row.ttft:.0f}",
            f"{row.alone:.0f}",
            f"< {PACE_TARGET:g}",
        )
    console.print(table)
    ratio = statistics.median(row.ratio for row in rows)
    console.print(f"median of p99 / before: {ratio:.2f}")
    return ratio < PACE_TARGET


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="smollm2-135m", choices=list(SHAPES))
    parser.add_argument("--model-id", type=Path, help="a checkpoint directory in place of --shape")
    parser.add_argument("--url", help="measure a running server instead")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--quantize", default="int8")
    parser.add_argument("--only", choices=("pace", "prefix"))
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=128, help="of each stream")
    parser.add_argument("--long-tokens", type=int, default=2000)
    parser.add_argument("--shared-tokens", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--log", type=Path, default=Path("/tmp/tgi-benchmark-server.log"))
    arguments = parser.parse_args()
    if arguments.url:
        sys.exit(not asyncio.run(measure(arguments.url, arguments)))
    path = arguments.model_id or ensure(arguments.shape)
    with server(path, arguments.dtype, arguments.quantize, arguments.log) as url:
        reached = asyncio.run(measure(url, arguments))
    sys.exit(not reached)


if __name__ == "__main__":
    main()
