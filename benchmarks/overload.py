"""Ten times more clients than permits: what becomes of the admitted, what a refusal costs, whether memory stays flat.

`python -m benchmarks.overload --url http://127.0.0.1:8080 --permits 8` drives a running server from one
event loop; `--pid` adds the memory of its processes. One more client asks for `/health` and for a
generation in turn: the same client under the same load, so that the ratio of a refusal to a health
check says something. Tests use `overload` for a few seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from statistics import median

import httpx
import psutil

PROMPT = "The server takes many prompts at once, gives each of them blocks of the cache and returns tokens. "
FACTOR = 10
PAUSE_S = 0.2
"""How long a refused client waits; much less than it is told to, so that the load stays."""


@dataclass
class Outcome:
    """Answers by kind, and seconds."""

    admitted: list[httpx.Response] = field(default_factory=list)
    refused: list[httpx.Response] = field(default_factory=list)
    refusal_s: list[float] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    """Resident bytes of the processes, once a second."""

    def take(self, response: httpx.Response) -> None:
        (self.refused if response.status_code == 429 else self.admitted).append(response)

    @property
    def cost(self) -> float:
        """Median refusal over median health check."""
        return median(self.refusal_s) / median(self.health_s)


async def overload(
    url: str, *, permits: int, seconds: float, max_new_tokens: int = 32, pid: int | None = None
) -> Outcome:
    """Run the load. Raises whatever httpx raises: a connection that breaks is a failure."""
    outcome = Outcome()
    end = time.monotonic() + seconds
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": max_new_tokens, "details": True}}

    async def timed(request: Awaitable[httpx.Response], times: list[float]) -> httpx.Response:
        began = time.monotonic()
        response = await request
        times.append(time.monotonic() - began)
        return response

    certificates = httpx.create_ssl_context()

    def connected() -> httpx.AsyncClient:
        # Each client its own pool: httpx looks at a pool's every connection for every request. At 80 connections
        # that is 4 ms of a processor each, so that the client, not the permits, would limit the load.
        return httpx.AsyncClient(base_url=url, timeout=120, verify=certificates)

    async def ask() -> None:
        async with connected() as client:
            while time.monotonic() < end:
                response = await client.post("/generate", json=body)
                outcome.take(response)
                await asyncio.sleep(PAUSE_S if response.status_code == 429 else 0)

    async def probe() -> None:
        async with connected() as client:
            while time.monotonic() < end:
                (await timed(client.get("/health"), outcome.health_s)).raise_for_status()
                await asyncio.sleep(PAUSE_S / 10)
                response = await timed(client.post("/generate", json=body), outcome.refusal_s)
                outcome.take(response)
                if response.status_code != 429:
                    outcome.refusal_s.pop()
                await asyncio.sleep(PAUSE_S / 10)

    async def weigh() -> None:
        while pid is not None and time.monotonic() < end:
            outcome.memory.append(resident(pid))
            await asyncio.sleep(1)

    async with connected() as client:
        await client.post("/generate", json=body)
    await asyncio.gather(probe(), weigh(), *(ask() for _ in range(permits * FACTOR)))
    return outcome


def resident(pid: int) -> int:
    """Bytes of a process and its children."""
    process = psutil.Process(pid)
    return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument(
        "--permits", type=int, required=True, help="--max-concurrent-requests of the server, which has --max-queue 0"
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pid", type=int, help="the server's process id")
    arguments = parser.parse_args()
    outcome = asyncio.run(
        overload(arguments.url, permits=arguments.permits, seconds=arguments.seconds, pid=arguments.pid)
    )
    failed = [response.status_code for response in outcome.admitted if response.status_code != 200]
    print(f"admitted {len(outcome.admitted)}, of them failed {len(failed)}; refused {len(outcome.refused)}")
    print(
        f"health {1000 * median(outcome.health_s):.1f} ms, refusal {1000 * median(outcome.refusal_s):.1f} ms (medians)"
    )
    print(f"a refusal costs {outcome.cost:.2f} times a /health")
    if outcome.memory:
        quarter = max(len(outcome.memory) // 4, 1)
        first, last = (median(part) / 2**20 for part in (outcome.memory[:quarter], outcome.memory[-quarter:]))
        print(f"resident memory: first quarter {first:.0f} MiB, last quarter {last:.0f} MiB")


if __name__ == "__main__":
    main()
