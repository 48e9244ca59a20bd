"""Real replicas behind `tgi route`: what the router adds, what a second replica gives, what is found in caches again.

Starts servers with the demo model, each pinned to a core of its own with one thread, and routers. Three tables:

- the time to the first token of one replica, asked directly and behind the router, by turns;
- tokens a second of one replica, asked directly, and of two behind the router, by turns;
- conversations that share a system prompt and take turns, behind the router and with the replica changing at each turn:
  the share of prompt tokens sent before that was found in a cache, by the servers' figures.

The router and this program run on the same cores: the second table says less than what two replicas give where cores
are left for them. `--replica-cores 0.3` leaves them some: each replica gets that share of a core and no more, by a
control group, so that two of them can have twice what one has.

    python -m benchmarks.replicas
    python -m benchmarks.replicas --only throughput --replica-cores 0.3
    python -m benchmarks.replicas --smoke
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.cpu_share import share

TURNS = 6
AT_ONCE = 8
CONVERSATION_KIB = 3500
"""Of keys and values of a conversation: about 1,150 tokens of the demo model at its last turn."""
MARGIN_KIB = 16_000
"""For what runs."""
SYSTEM_WORDS = 50
USER_WORDS = 40
ANSWER_TOKENS = 12
START_S = 120
STREAMS = (1, 64)
STREAM_TOKENS = 32
WORDS = Path(__file__).read_text().split()


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    conversations: int = 200
    rounds: int = 5
    """Turns of each side in the first two tables."""
    requests: int = 128
    """Of each turn at 64 streams; a quarter of it at one."""


SMOKE = Size(conversations=6, rounds=1, requests=16)


@dataclass
class Outcome:
    """One way to choose, or one side of a comparison."""

    name: str
    cached: int = 0
    repeated: int = 0
    tokens: int = 0
    seconds: float = 0.0
    firsts: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    """Tokens a second of each turn."""
    load: Counter[str] = field(default_factory=Counter)
    """Requests of each replica."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Processes started within the block run on this core alone."""
    before = os.sched_getaffinity(0)
    if core is not None:
        cores = sorted(before)
        os.sched_setaffinity(0, {cores[core % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def started(
    command: Sequence[str], directory: Path, core: int | None = None, enter: Callable[[], None] | None = None
) -> Iterator[str]:
    """A command of tgi that listens; gives its address. enter: what the new process does first."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (directory / f"{port}.log").open("w") as log:
        with pinned(core):
            process = subprocess.Popen(
                [sys.executable, "-m", "tgi", *command, "--port", str(port)],
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=enter,
            )
        try:
            until = time.monotonic() + START_S
            while True:
                try:
                    if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"`tgi {command[0]}` did not start: {log.name}")
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=20)


class Machines:
    """Servers and routers that end together."""

    def __init__(self, cache: str) -> None:
        self._cache = cache
        self._stack = ExitStack()

    def __enter__(self) -> Machines:
        self._directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def servers(self, count: int, cores: float | None = None) -> list[str]:
        """cores: the share of each; None: a core that it is pinned to."""
        command = ["serve", "--threads", "1", "--kv-cache-memory", self._cache]
        if cores is None:
            return [self._stack.enter_context(started(command, self._directory, core)) for core in range(count)]
        shares = [self._stack.enter_context(share(cores)) for _ in range(count)]
        return [self._stack.enter_context(started(command, self._directory, enter=one)) for one in shares]

    def router(self, urls: Sequence[str]) -> str:
        flags = [f"--replica={url}" for url in urls]
        return self._stack.enter_context(started(["route", *flags], self._directory))


async def stream(client: httpx.AsyncClient, url: str, number: int, outcome: Outcome) -> None:
    """One answer that is the same work each time and of which nothing is cached."""
    rng = random.Random(number)
    body = {
        "messages": [{"role": "user", "content": " ".join(rng.choices(WORDS, k=60))}],
        "stream": True,
        "max_tokens": STREAM_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
    }
    begin, first = time.perf_counter(), 0.0
    async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for _ in answer.aiter_raw():
            first = first or time.perf_counter() - begin
    outcome.firsts.append(first)
    outcome.tokens += STREAM_TOKENS


async def streams(url: str, at_once: int, requests: int, seed: int, outcome: Outcome) -> None:
    """`requests` answers, `at_once` of them at a time; tokens and seconds are added to `outcome`."""
    places = asyncio.Semaphore(at_once)
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(timeout=300, trust_env=False, limits=limits) as client:

        async def one(number: int) -> None:
            async with places:
                await stream(client, url, seed * 1_000_003 + number, outcome)

        begin, before = time.perf_counter(), outcome.tokens
        await asyncio.gather(*(one(number) for number in range(requests)))
        seconds = time.perf_counter() - begin
        outcome.seconds += seconds
        outcome.rates.append((outcome.tokens - before) / seconds)


def by_turns(sides: Sequence[tuple[Outcome, str]], at_once: int, size: Size) -> None:
    """Both sides get as many requests of one kind, none of them twice, and the first place by turns."""
    requests = size.requests if at_once > 1 else max(size.requests // 4, 4)
    for number in range(size.rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for outcome, url in order:
            asyncio.run(streams(url, at_once, requests, number * 2 + (outcome.name == sides[1][0].name), outcome))


def added(cache: str, size: Size) -> Table:
    table = Table(title="What the router adds to the first token, one replica")
    for column in ("streams", "direct p50 ms", "behind the router p50 ms", "added ms", "wanted"):
        table.add_column(column, justify="right")
    with Machines(cache) as machines:
        (server,) = machines.servers(1)
        router = machines.router([server])
        for at_once in STREAMS:
            direct, routed = Outcome("direct"), Outcome("routed")
            by_turns([(direct, server), (routed, router)], at_once, size)
            without, behind = (statistics.median(one.firsts) * 1000 for one in (direct, routed))
            bound = 5 if at_once == 1 else 15
            table.add_row(str(at_once), f"{without:.1f}", f"{behind:.1f}", f"{behind - without:.1f}", f"< {bound}")
    return table


def throughput(cache: str, size: Size, cores: float | None) -> Table:
    each = "pinned to its core" if cores is None else f"with {cores:g} of a core"
    table = Table(title=f"What a second replica gives, each {each}, 64 streams, {size.rounds} rounds by turns")
    for column in ("replicas", "tokens/s", "of one", "median of the rounds", "best", "wanted"):
        table.add_column(column, justify="right")
    with Machines(cache) as machines:
        servers = machines.servers(2, cores)
        one, two = Outcome("one, direct"), Outcome("two, behind the router")
        router = machines.router(servers)
        asyncio.run(streams(router, 8, 16, 10**6, Outcome("warm")))
        by_turns([(one, servers[0]), (two, router)], 64, size)
    totals = [side.tokens / side.seconds for side in (one, two)]
    ratios = [more / less for more, less in zip(two.rates, one.rates, strict=True)]
    table.add_row(one.name, f"{totals[0]:.0f}", "1.00", "", "", "")
    table.add_row(
        two.name,
        f"{totals[1]:.0f}",
        f"{totals[1] / totals[0]:.2f}",
        f"{statistics.median(ratios):.2f}",
        f"{max(ratios):.2f}",
        ">= 1.9",
    )
    return table


class Conversation:
    """One user."""

    def __init__(self, number: int) -> None:
        self._random = random.Random(number)
        self._messages = [{"role": "system", "content": " ".join(WORDS[:SYSTEM_WORDS])}]
        self._before = 0
        """Prompt tokens of the turn before."""

    async def turn(self, client: httpx.AsyncClient, url: str, outcome: Outcome) -> None:
        self._messages.append({"role": "user", "content": " ".join(self._random.choices(WORDS, k=USER_WORDS))})
        body = {"messages": self._messages, "max_tokens": ANSWER_TOKENS, "temperature": 0, "ignore_eos": True}
        begin = time.perf_counter()
        answer = await client.post(f"{url}/v1/chat/completions", json=body)
        answer.raise_for_status()
        outcome.firsts.append(time.perf_counter() - begin)
        said = answer.json()
        usage = said["usage"]
        found = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        outcome.cached += min(found, self._before)
        outcome.repeated += self._before
        outcome.tokens += usage["prompt_tokens"] + usage["completion_tokens"]
        outcome.load[answer.headers.get("x-tgi-replica", url)] += 1
        self._before = usage["prompt_tokens"]
        self._messages.append({"role": "assistant", "content": said["choices"][0]["message"]["content"]})


async def load(urls: Sequence[str], conversations: int, name: str) -> Outcome:
    """Every conversation takes its first turn, then each its second one, some at once; addresses are used in turn.

    So all other conversations lie between two turns of one, as where people think and type.
    """
    outcome, places, sent = Outcome(name), asyncio.Semaphore(AT_ONCE), 0
    users = [Conversation(number) for number in range(conversations)]
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:

        async def one(user: Conversation) -> None:
            nonlocal sent
            async with places:
                sent += 1
                await user.turn(client, urls[sent % len(urls)], outcome)

        begin = time.perf_counter()
        for turn in range(TURNS):
            random.Random(turn).shuffle(users)
            await asyncio.gather(*(one(user) for user in users))
        outcome.seconds = time.perf_counter() - begin
    return outcome


def conversations(replicas: int, cache: str, size: Size) -> Table:
    """Each way with fresh servers, so that none finds what another one left."""
    table = Table(
        title=f"{replicas} replicas, {size.conversations} conversations of {TURNS} turns, {cache} of cache each"
    )
    for column in ("choice", "repeated tokens found", "wanted", "most load of mean", "wanted ", "tokens/s", "p50 ms"):
        table.add_column(column, justify="left" if column == "choice" else "right")
    for name, hits, most in (("round robin", "< 0.55", ""), ("tgi route", ">= 0.80", "<= 1.3")):
        with Machines(cache) as machines:
            urls = machines.servers(replicas)
            if name == "tgi route":
                urls = [machines.router(urls)]
            one = asyncio.run(load(urls, size.conversations, name))
        mean = sum(one.load.values()) / replicas
        table.add_row(
            one.name,
            f"{one.cached / one.repeated:.3f}",
            hits,
            f"{max(one.load.values()) / mean:.2f}",
            most,
            f"{one.tokens / one.seconds:.0f}",
            f"{statistics.median(one.firsts) * 1000:.0f}",
        )
    return table


PARTS = ("added", "throughput", "conversations")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="default: all tables")
    parser.add_argument("--smoke", action="store_true", help="little of each, to see that it works")
    parser.add_argument("--replicas", type=int, default=4, help="of the last table")
    parser.add_argument("--conversations", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--requests", type=int, help="of each turn in the first two tables")
    parser.add_argument(
        "--replica-cores",
        type=float,
        help="share of a core of each replica in the second table, such as 0.3; default: each is pinned to a core",
    )
    parser.add_argument("--kv-cache-memory", default="64MiB", help="of each replica in the first two tables")
    parser.add_argument(
        "--cache-of-conversations",
        help="of each replica in the last table; default: room for a replica's part of the conversations, since any "
        "choice finds them where each replica has room for all",
    )
    flags = parser.parse_args()
    size = SMOKE if flags.smoke else Size()
    size = Size(flags.conversations or size.conversations, flags.rounds or size.rounds, flags.requests or size.requests)
    share = max(size.conversations // flags.replicas, AT_ONCE)
    cache = flags.cache_of_conversations or f"{share * CONVERSATION_KIB + MARGIN_KIB}KiB"
    console = Console()
    console.print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} before the start")
    for part in flags.only or PARTS:
        if part == "added":
            console.print(added(flags.kv_cache_memory, size))
        elif part == "throughput":
            console.print(throughput(flags.kv_cache_memory, size, flags.replica_cores))
        else:
            console.print(conversations(flags.replicas, cache, size))


if __name__ == "__main__":
    main()
