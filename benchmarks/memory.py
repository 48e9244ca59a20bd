"""The memory plan against reality: what `tgi plan` predicts and what the processes of a server hold.

Predicted: weights, activations and KV cache, without the row for interpreter and libraries. Held: the
summed PSS of the server's processes above that of a server with a tiny model; at the start, and at most
during a load of full steps and of as many sampled rows as a step may have. A test uses `compare`.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table
from tests.models.checkpoints import make_checkpoint

from benchmarks.checkpoints import SHAPES, ensure

START_TIMEOUT_S = 600
NOT_OF_THE_MODEL = ("runtime", "left free")
ROWS = 128
"""Sequences of a full batch."""


@dataclass(frozen=True)
class Held:
    """Bytes above an empty server."""

    cache: int
    """Predicted for the KV cache, which is taken as it is used."""
    predicted: int
    started: int
    loaded: int
    """The most during and after the load."""

    @property
    def error(self) -> float:
        """Of the prediction, relative to what is held under load."""
        return self.predicted / self.loaded - 1


def compare(model: Path, flags: Sequence[str]) -> Held:
    """Start an empty server, then one with the model, and load it."""
    with tempfile.TemporaryDirectory() as directory:
        tiny = make_checkpoint(Path(directory) / "tiny", "llama", dtype="bfloat16", max_position_embeddings=2048)
        with server(tiny, ["--kv-cache-memory", "1MiB"]) as (_, process):
            empty = held_by(process)
    with server(model, flags) as (url, process):
        started = held_by(process)
        most = Most(process)
        load(url)
        loaded = most.stop()
    rows = predict(model, flags)
    return Held(rows["KV cache"], sum(rows.values()), started - empty, loaded - empty)


def predict(model: Path, flags: Sequence[str]) -> dict[str, int]:
    """The plan's rows that depend on the model, name -> bytes."""
    command = [sys.executable, "-m", "tgi", "plan", "--model-id", str(model), *flags, "--json"]
    plan = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {row["name"]: row["bytes"] for row in plan["memory"]["rows"] if row["name"] not in NOT_OF_THE_MODEL}


@contextmanager
def server(model: Path, flags: Sequence[str]) -> Iterator[tuple[str, psutil.Process]]:
    """A launcher that serves the model, ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tgi", "serve", "--model-id", str(model), "--port", str(port), *flags]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not _ready(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise SystemExit(f"the server did not start:\n{log.read().decode()}")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(60)


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False


def held_by(process: psutil.Process) -> int:
    """Summed PSS of a process and its children: shared pages are counted once."""
    return sum(one.memory_full_info().pss for one in [process, *process.children(recursive=True)])


class Most:
    """Watches from its creation until `stop`, which gives the largest value seen."""

    INTERVAL_S = 0.2

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._value = held_by(process)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> int:
        self._ending.set()
        self._thread.join()
        return max(self._value, held_by(self._process))

    def _run(self) -> None:
        while not self._ending.wait(self.INTERVAL_S):
            self._value = max(self._value, held_by(self._process))


def load(url: str) -> None:
    """Full prefill steps that fill the cache, then decode steps of full batches that sample with filters."""
    generator = random.Random(0)
    limits = httpx.get(f"{url}/info").json()
    longest = min(limits["max_input_tokens"], 2 * limits["runtime"]["max_batch_prefill_tokens"])

    def complete(length: int) -> None:
        prompt = [generator.randrange(100, 300) for _ in range(length)]
        body = {"prompt": prompt, "max_tokens": 4, "temperature": 0.9, "top_p": 0.9, "ignore_eos": True, "logprobs": 2}
        httpx.post(f"{url}/v1/completions", json=body, timeout=600).raise_for_status()

    rows = min(ROWS, limits["max_concurrent_requests"])
    with ThreadPoolExecutor(rows) as threads:
        list(threads.map(complete, [longest] * max(2, -(-limits["runtime"]["max_batch_total_tokens"] // longest))))
        list(threads.map(complete, [4] * rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", default=["smollm2-135m"], help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--kv-cache-memory", default="512MiB")
    arguments, flags = parser.parse_known_args()
    table = Table("model", "predicted", "at start", "under load", "error", title="MiB above an empty server")
    for shape in arguments.shapes:
        held = compare(ensure(shape), ["--kv-cache-memory", arguments.kv_cache_memory, *flags])
        cells = [f"{value / 2**20:.0f}" for value in (held.predicted, held.started, held.loaded)]
        table.add_row(shape, *cells, f"{held.error:+.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
