"""Decode throughput over HTTP at several concurrencies, and how it scales.

Starts the launcher on a free port with a random-weight checkpoint (or measures --url) and measures it with
`tgi.bench`: distinct random prompts, all sent at one moment; medians over repetitions.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.checkpoints import SHAPES, ensure
from tgi.bench.http import Client
from tgi.bench.load import Load, Progress, Source, run
from tgi.bench.prompts import Lengths, text
from tgi.bench.summary import Figures, summarize, warnings
from tgi.bench.target import find


@contextmanager
def server(path: Path, dtype: str, quantize: str | None, log: Path, *more: str) -> Iterator[str]:
    """A launcher serving `path`, ready; its log goes to a file. more: further flags of the launcher."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tgi", "serve", "--model-id", str(path), "--port", str(port), "--dtype", dtype]
    command += more
    if quantize:
        command += ["--quantize", quantize]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(1200):
                if process.poll() is not None:
                    raise SystemExit(f"the server did not start, see {log}")
                try:
                    httpx.get(f"{url}/health")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait(30)


async def measure(url: str, concurrencies: Sequence[int], arguments: argparse.Namespace) -> list[list[Figures]]:
    """For each concurrency the figures of every repetition: all requests sent at one moment."""
    rng = random.Random(secrets.randbits(64))
    async with Client(url) as client:
        target = await find(client, text=lambda words: text(rng, words))
        prompts, outputs = Lengths.parse(str(arguments.prompt_tokens)), Lengths.parse(str(arguments.new_tokens))
        source = Source(rng, target.dialect, target.scale, prompts, outputs)
        await target.send(*source.draw())
        rows = []
        for concurrency in concurrencies:
            load = Load(concurrency, arrivals="burst", requests=concurrency)
            levels = [await run(target, load, source.draw, rng, Progress()) for _ in range(arguments.repetitions)]
            rows.append([summarize(level) for level in levels])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="smollm2-135m", choices=list(SHAPES))
    parser.add_argument("--model-id", type=Path, help="a checkpoint directory in place of --shape")
    parser.add_argument("--url", help="measure a running server instead")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--quantize")
    parser.add_argument("--disable-custom-kernels", action="store_true", help="serve with the torch reference")
    parser.add_argument("-c", "--concurrency", default="1,4,8,16", help="comma list")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--log", type=Path, default=Path("/tmp/tgi-benchmark-server.log"))
    arguments = parser.parse_args()
    if arguments.url:
        report(arguments.url, arguments)
        return
    path = arguments.model_id or ensure(arguments.shape)
    more = ["--disable-custom-kernels"] if arguments.disable_custom_kernels else []
    with server(path, arguments.dtype, arguments.quantize, arguments.log, *more) as url:
        report(url, arguments)


def report(url: str, arguments: argparse.Namespace) -> None:
    table = Table(title=f"{url}: prompt {arguments.prompt_tokens}, {arguments.new_tokens} new tokens, greedy")
    for column in ("concurrency", "prefill t/s", "decode t/s", "x at first", "TTFT p50 ms", "gap p50 ms", "client CPU"):
        table.add_column(column, justify="right")
    concurrencies = list(map(int, arguments.concurrency.split(",")))
    first = 0.0
    for concurrency, rows in zip(concurrencies, asyncio.run(measure(url, concurrencies, arguments)), strict=True):
        for warning in warnings(rows):
            print(f"warning: {warning}", file=sys.stderr)
        decode = statistics.median(row.decode_tps for row in rows)
        first = first or decode
        table.add_row(
            str(concurrency),
            f"{statistics.median(row.prefill_tps for row in rows):.0f}",
            f"{decode:.1f}",
            f"{decode / first:.2f}",
            f"{statistics.median(row.ttft_ms.p50 for row in rows):.0f}",
            f"{statistics.median(row.itl_ms.p50 for row in rows):.1f}",
            f"{statistics.median(row.client_cpu for row in rows):.0%}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
