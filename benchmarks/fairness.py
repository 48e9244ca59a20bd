"""What some requests wait for others: short prompts beside a burst of long ones, one API key beside a busy other.

Two experiments against a launcher with a random-weight checkpoint (or --model-id):

    burst    8 prompts of 1,500 tokens are sent together, 8 of 32 tokens right after them. Times to first token,
             and of the short ones also on an idle server.
    keys     one key sends 200 requests at once; a second later another key sends its first. Its time to first
             token, and on an idle server. (Servers before `--api-key` could be repeated: --one-key.)

Medians over repetitions, each printed as it comes. What has been waited for is measured when the short prompts, or the
other key, have their first tokens: the rest is cancelled then, which makes minutes of seconds. With --to-the-end it is
waited for, and the long prompts' times are shown, too.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import statistics
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import SHAPES, ensure
from benchmarks.latency import ask, sent
from benchmarks.serving import server
from tgi.bench.http import Client
from tgi.bench.prompts import text
from tgi.bench.target import Target, find

KEYS = ("first-key", "second-key")
PAUSE_S = 0.02
"""Between the long prompts and the short ones: enough for the server to have begun."""
HEAD_START_S = 1.0
IDLE_S = 2.0
"""After a repetition: for the server to notice that its clients have left."""


async def let_go(tasks: list[asyncio.Task[Any]], arguments: argparse.Namespace) -> None:
    """The end of what the others waited for: cancelled, unless it is to be measured."""
    if not arguments.to_the_end:
        for task in tasks:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=not arguments.to_the_end)
    await asyncio.sleep(IDLE_S)


async def burst(target: Target, rng: random.Random, arguments: argparse.Namespace) -> tuple[float, float]:
    """Milliseconds to the first token: median of the short prompts beside long ones, and of short ones alone."""

    async def first_token(tokens: int) -> float:
        return (await sent(target, ask(target, rng, tokens, arguments.new_tokens))).ttft * 1e3

    alone = [await first_token(arguments.short_tokens) for _ in range(5)]
    long = [asyncio.create_task(first_token(arguments.long_tokens)) for _ in range(arguments.count)]
    await asyncio.sleep(PAUSE_S)
    short = [asyncio.create_task(first_token(arguments.short_tokens)) for _ in range(arguments.count)]
    beside = statistics.median(await asyncio.gather(*short))
    await let_go(long, arguments)
    if arguments.to_the_end:
        print(f"  long prompts: {statistics.median(task.result() for task in long):.0f} ms", flush=True)
    return beside, statistics.median(alone)


async def keys(busy: Target, other: Target, rng: random.Random, arguments: argparse.Namespace) -> tuple[float, float]:
    """Milliseconds to the first token of the other key's first request: beside the busy key, and alone."""

    async def first_token() -> float:
        return (await sent(other, ask(other, rng, arguments.short_tokens, 4))).ttft * 1e3

    alone = statistics.median([await first_token() for _ in range(5)])
    tasks = [
        asyncio.create_task(busy.send(ask(busy, rng, arguments.busy_tokens, arguments.new_tokens)))
        for _ in range(arguments.requests)
    ]
    await asyncio.sleep(HEAD_START_S)
    beside = await first_token()
    await let_go(tasks, arguments)
    return beside, alone


async def repeated(name: str, experiment: Callable[[], Awaitable[tuple[float, float]]], count: int) -> None:
    """Print each repetition, then the medians."""
    rows = []
    for number in range(1, count + 1):
        rows.append(await experiment())
        print(f"  {number}/{count}: {rows[-1][0]:.0f} ms, alone {rows[-1][1]:.0f} ms", flush=True)
    beside, alone = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"{name}: {beside:.0f} ms (alone {alone:.0f} ms): {beside - alone:.0f} ms later", flush=True)


async def measure(url: str, arguments: argparse.Namespace) -> None:
    rng = random.Random(secrets.randbits(64))
    names = (KEYS[0], KEYS[0]) if arguments.one_key else KEYS
    async with Client(url, names[0]) as first, Client(url, names[1]) as second:
        busy, other = [await find(client, text=lambda words: text(rng, words)) for client in (first, second)]
        for _ in range(2):  # connections, first steps
            await sent(busy, ask(busy, rng, arguments.short_tokens, 16))
        if arguments.only != "keys":
            name = f"burst: first token of {arguments.count} short prompts beside {arguments.count} long ones"
            await repeated(name, lambda: burst(busy, rng, arguments), arguments.repetitions)
        if arguments.only != "burst":
            name = f"keys: first token of the other key's first request beside {arguments.requests}"
            await repeated(name, lambda: keys(busy, other, rng, arguments), arguments.repetitions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="smollm2-135m", choices=list(SHAPES))
    parser.add_argument("--model-id", type=Path, help="a checkpoint directory in place of --shape")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--quantize")
    parser.add_argument("--kv-cache-memory", default="512MiB")
    parser.add_argument("--only", choices=("burst", "keys"))
    parser.add_argument("--one-key", action="store_true", help="the server takes only one key: both clients use it")
    parser.add_argument("--count", type=int, default=8, help="of long prompts, and of short ones")
    parser.add_argument("--short-tokens", type=int, default=32)
    parser.add_argument("--long-tokens", type=int, default=1500)
    parser.add_argument("--busy-tokens", type=int, default=128, help="prompt of each request of the busy key")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--requests", type=int, default=200, help="of the busy key")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--to-the-end", action="store_true", help="cancel nothing: takes many minutes on two cores")
    parser.add_argument("--log", type=Path, default=Path("/tmp/tgi-benchmark-server.log"))
    arguments = parser.parse_args()
    path = arguments.model_id or ensure(arguments.shape)
    more = ["--api-key", KEYS[0]] if arguments.one_key else [word for key in KEYS for word in ("--api-key", key)]
    more += ["--max-concurrent-requests", "256", "--kv-cache-memory", arguments.kv_cache_memory]
    with server(path, arguments.dtype, arguments.quantize, arguments.log, *more) as url:
        asyncio.run(measure(url, arguments))


if __name__ == "__main__":
    main()
