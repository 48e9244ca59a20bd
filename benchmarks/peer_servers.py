"""Servers and the load client: ours, llama-server and vllm serve through OpenAI's completions route.

Owns their command lines, their memory, and one repetition of load. All get the same token ids at one
moment; the client is `tgi.bench`. Used by `peers`.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from benchmarks.memory import held_by
from benchmarks.peer_engines import LOAD_LIMIT_S, MIB, NEW, PROMPT, EngineError, environment
from benchmarks.peer_rows import OURS
from benchmarks.peer_setup import Home
from tgi.bench.errors import BenchError
from tgi.bench.http import Client
from tgi.bench.load import Load, Progress, Source, run
from tgi.bench.prompts import Lengths, text
from tgi.bench.summary import Figures, summarize
from tgi.bench.target import find

SERVING = (OURS, "llama.cpp", "vllm")
VOCABULARY = 48_000
SEQUENCES = 16
CONTEXT = 512
"""Of a sequence; llama-server splits its whole context evenly."""


def command(peer: str, home: Home, model: Path, width: str, port: int, threads: int) -> list[str]:
    """What starts the server. The caches are 512 MiB of ours, what 16 sequences need of llama.cpp, 1 GiB of vLLM."""
    where = ["--host", "127.0.0.1", "--port", str(port)]
    if peer == "llama.cpp":
        flags = f"-c {SEQUENCES * CONTEXT} -np {SEQUENCES} -b 2048 -ub 512 -t {threads} -tb {threads}"
        return [str(home.llama("llama-server")), "-m", str(model), *flags.split(), *where]
    if peer == "vllm":
        # What `vllm serve` starts; that command itself does not run as packaged for CPUs.
        flags = f"--model {model} --dtype bfloat16 --max-model-len 2048 --max-num-seqs 32 --no-enable-prefix-caching"
        return [str(home.python(peer)), "-m", "vllm.entrypoints.openai.api_server", *flags.split(), *where]
    assert peer == OURS
    flags = f"serve --dtype bfloat16 --kv-cache-memory 512MiB --threads {threads} --hostname 127.0.0.1 --port {port}"
    quantize = [] if width == "bf16" else ["--quantize", width, "--kv-cache-dtype", "int8"]
    return [sys.executable, "-m", "tgi", *flags.split(), "--model-id", str(model), *quantize]


class Server:
    """A server that answers on a free port."""

    def __init__(self, peer: str, home: Home, model: Path, width: str, cores: Sequence[int]) -> None:
        """Start it and wait until it is ready. Raises EngineError."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = home.path / "logs" / f"server-{peer}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command(peer, home, model, width, port, len(cores)),
                env=environment(cores, peer),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pss_mib = 0.0
        """Of all its processes together, the most seen by `note_memory`."""
        try:
            self._wait()
        except EngineError:
            self.close()
            raise

    def _wait(self) -> None:
        end = time.monotonic() + LOAD_LIMIT_S
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return
            if self._process.poll() is not None or time.monotonic() > end:
                raise EngineError(f"the server did not start; see {self._log}")
            time.sleep(0.2)

    def burst(self, concurrency: int) -> Figures:
        """So many requests at one moment. Raises EngineError when one of them fails or is short."""
        try:
            figures = asyncio.run(_burst(self.url, concurrency))
        except BenchError as error:
            raise EngineError(str(error)) from None
        if figures.ok < concurrency or figures.short:
            raise EngineError(f"{figures.ok} of {concurrency} answered, {figures.short} short: {figures.first_error}")
        return figures

    def note_memory(self) -> None:
        """After a load: what it took is still mapped, and a look during it would take processor time."""
        self.pss_mib = max(self.pss_mib, held_by(psutil.Process(self._process.pid)) / MIB)

    def close(self) -> None:
        """Politely first, so that it ends its own processes."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


async def _burst(url: str, concurrency: int) -> Figures:
    rng = random.Random(secrets.randbits(64))
    async with Client(url) as client:
        target = await find(client, "openai-completions", text=lambda words: text(rng, words))
        lengths = Lengths.parse(str(PROMPT)), Lengths.parse(str(NEW))
        source = Source(rng, target.dialect, target.scale, *lengths, vocabulary=VOCABULARY)
        load = Load(concurrency, arrivals="burst", requests=concurrency)
        return summarize(await run(target, load, source.draw, rng, Progress()))
