"""Real replicas behind `tgi route`: conversations that find their cache again, against a random replica each turn.

Starts servers with the demo model, each on one thread, and a router. Conversations share a system prompt and
take turns; what counts is the share of prompt tokens sent before that was found in a cache, by the servers' figures.

    python -m benchmarks.replicas --replicas 2 --conversations 200
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

TURNS = 6
AT_ONCE = 16
ANSWER_TOKENS = 12
START_S = 120
WORDS = Path(__file__).read_text().split()


@dataclass
class Outcome:
    """One way to choose."""

    name: str
    cached: int = 0
    repeated: int = 0
    tokens: int = 0
    seconds: float = 0.0
    firsts: list[float] = field(default_factory=list)
    load: Counter[str] = field(default_factory=Counter)
    """Requests of each replica."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextmanager
def started(command: Sequence[str], ready: str, directory: Path) -> Iterator[str]:
    """A command of tgi that listens; gives its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (directory / f"{port}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tgi", *command, "--port", str(port)], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            until = time.monotonic() + START_S
            while True:
                try:
                    if httpx.get(url + ready, timeout=5).status_code == 200:
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


async def conversation(client: httpx.AsyncClient, urls: Sequence[str], number: int, outcome: Outcome) -> None:
    """Six turns; with several addresses each turn goes to the next one of them."""
    rng = random.Random(number)
    messages = [{"role": "system", "content": " ".join(WORDS[:120])}]
    before = 0
    for turn in range(TURNS):
        messages.append({"role": "user", "content": " ".join(rng.choices(WORDS, k=25))})
        url = urls[(number + turn + rng.randrange(len(urls))) % len(urls)]
        body = {"messages": messages, "max_tokens": ANSWER_TOKENS, "temperature": 0, "ignore_eos": True}
        begin = time.perf_counter()
        answer = await client.post(f"{url}/v1/chat/completions", json=body)
        answer.raise_for_status()
        outcome.firsts.append(time.perf_counter() - begin)
        said = answer.json()
        usage = said["usage"]
        outcome.cached += min((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0, before or 1 << 30)
        outcome.repeated += before
        outcome.tokens += usage["prompt_tokens"] + usage["completion_tokens"]
        outcome.load[answer.headers.get("x-tgi-replica", url)] += 1
        before = usage["prompt_tokens"]
        messages.append({"role": "assistant", "content": said["choices"][0]["message"]["content"]})


async def load(urls: Sequence[str], conversations: int, name: str) -> Outcome:
    """All conversations, some at once."""
    outcome, places = Outcome(name), asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:

        async def one(number: int) -> None:
            async with places:
                await conversation(client, urls, number, outcome)

        begin = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(conversations)))
        outcome.seconds = time.perf_counter() - begin
    return outcome


def measure(replicas: int, conversations: int, cache: str) -> list[Outcome]:
    """Each way with fresh servers, so that none finds what another one left."""
    found = []
    for name in ("random replica", "tgi route"):
        with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
            serve = ["serve", "--threads", "1", "--kv-cache-memory", cache]
            urls = [stack.enter_context(started(serve, "/health", Path(directory))) for _ in range(replicas)]
            if name == "tgi route":
                flags = [f"--replica={url}" for url in urls]
                urls = [stack.enter_context(started(["route", *flags], "/health", Path(directory)))]
            found.append(asyncio.run(load(urls, conversations, name)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--kv-cache-memory", default="64MiB", help="of each replica")
    flags = parser.parse_args()
    table = Table(title=f"{flags.replicas} replicas, {flags.conversations} conversations of {TURNS} turns")
    for column in ("choice", "repeated tokens found", "most load of mean", "tokens/s", "p50 answer ms"):
        table.add_column(column, justify="left" if column == "choice" else "right")
    for one in measure(flags.replicas, flags.conversations, flags.kv_cache_memory):
        mean = sum(one.load.values()) / flags.replicas
        table.add_row(
            one.name,
            f"{one.cached / one.repeated:.3f}",
            f"{max(one.load.values()) / mean:.2f}",
            f"{one.tokens / one.seconds:.0f}",
            f"{sorted(one.firsts)[len(one.firsts) // 2] * 1000:.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
