"""Engines in process, each as its own process that this one starts, stops for a while, continues and asks.

Owns those processes and what is counted as a figure: prefill is the prompt's tokens over the time until
one token is there; decode is COUNT x NEW over the time that NEW more tokens take, so that prefill is no
part of it. Used by `peers`.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.peer_rows import OURS
from benchmarks.peer_setup import Home

WORKERS = Path(__file__).with_name("peer_workers.py")
PROMPT, NEW = 128, 64
PREFILL = 512
LOAD_LIMIT_S, ANSWER_LIMIT_S = 900.0, 600.0
MIB = 2**20


class EngineError(Exception):
    """A peer does not start, or stopped to answer; the others go on."""


class Engine(Protocol):
    """One engine with one checkpoint."""

    version: str

    def prefill(self) -> float:
        """Tokens a second over one prompt of PREFILL tokens."""
        ...

    def decode(self, concurrency: int) -> float:
        """Tokens a second of NEW tokens each for so many prompts of PROMPT tokens at once."""
        ...

    def pause(self) -> None:
        """Until the next `resume` it takes no processor time, not even for waiting."""
        ...

    def resume(self) -> None: ...

    def rss_mib(self) -> float:
        """Peak so far."""
        ...

    def close(self) -> None: ...


def make(peer: str, home: Home, model: Path, width: str, cores: Sequence[int]) -> Engine:
    """Start an engine and load the checkpoint. Raises EngineError."""
    if peer == "llama.cpp":
        return LlamaCpp(home, model, len(cores))
    command = [home.python(peer), "-P", WORKERS, peer, model, width, len(cores)]
    return Worker([str(part) for part in command], environment(cores, peer), home.path / "logs" / f"{peer}.log")


def environment(cores: Sequence[int], peer: str) -> dict[str, str]:
    """For a peer's process: its threads, and no look for newer models."""
    result = {**os.environ, "OMP_NUM_THREADS": str(len(cores)), "HF_HUB_OFFLINE": "1"}
    if peer == OURS:
        del result["OMP_NUM_THREADS"]  # has its own flag
    if peer == "vllm":
        result |= {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
        }
    return result


class Worker:
    """`peer_workers.py` for one peer."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        try:
            self.version = self._answer("version", LOAD_LIMIT_S)
        except EngineError:
            self.close()
            raise

    def prefill(self) -> float:
        return PREFILL / self.seconds(1, PREFILL, 1)

    def decode(self, concurrency: int) -> float:
        first = self.seconds(concurrency, PROMPT, 1)
        return concurrency * NEW / (self.seconds(concurrency, PROMPT, NEW + 1) - first)

    def seconds(self, count: int, prompt: int, new: int) -> float:
        """Of one generation. Raises EngineError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{count} {prompt} {new}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise EngineError(f"it ended; see {self._log}") from None
        return self._answer("seconds", ANSWER_LIMIT_S)

    def pause(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else 0.0

    def close(self) -> None:
        """Ends the whole session: some peers start processes of their own."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def _answer(self, key: str, limit_s: float) -> Any:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(limit_s):
                raise EngineError(f"no answer within {limit_s:.0f} s; see {self._log}")
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "it ended"}
        if key not in answer:
            raise EngineError(f"{answer.get('error')}; see {self._log}")
        return answer[key]


class LlamaCpp:
    """llama.cpp by its own programs; each measurement is a start, so there is nothing to pause."""

    def __init__(self, home: Home, model: Path, threads: int) -> None:
        self._bench = home.llama("llama-bench")
        self._batched = home.llama("llama-batched-bench")
        self._common = ["-m", str(model), "-t", str(threads)]
        self._rss = 0.0
        self.version = llama_version(self._run([str(home.llama("llama-server")), "--version"]))

    def prefill(self) -> float:
        return parse_bench(self._run([str(self._bench), *self._common, *f"-p {PREFILL} -n 0 -r 1 -o json".split()]))

    def decode(self, concurrency: int) -> float:
        context = max(concurrency, 4) * 2 * (PROMPT + NEW)
        flags = f"-c {context} -b 2048 -ub 512 -npp {PROMPT} -ntg {NEW} -npl {concurrency} --output-format jsonl"
        return parse_batched(self._run([str(self._batched), *self._common, *flags.split()]), concurrency)

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def rss_mib(self) -> float:
        return self._rss

    def close(self) -> None: ...

    def _run(self, command: Sequence[str]) -> str:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise EngineError(f"{Path(command[0]).name} ended with status {process.returncode}: {output[-200:]}")
        self._rss = max(self._rss, used.ru_maxrss / 1024)
        return output


def llama_version(output: str) -> str:
    found = re.search(r"version: (\S+)", output)
    return found[1] if found else "unknown"


def parse_bench(output: str) -> float:
    """Tokens a second from what llama-bench prints; other lines stand around its list."""
    found = re.search(r"^\[\n.*^\]", output, re.DOTALL | re.MULTILINE)
    if not found:
        raise EngineError(f"llama-bench printed no figures: {output[-200:]}")
    return float(json.loads(found[0])[0]["avg_ts"])


def parse_batched(output: str, concurrency: int) -> float:
    """Tokens a second of generation from what llama-batched-bench prints."""
    for line in output.splitlines():
        if line.lstrip().startswith("{") and '"pl"' in line:
            row = json.loads(line)
            if row["pl"] == concurrency:
                return float(row["speed_tg"])
    raise EngineError(f"llama-batched-bench printed no figures: {output[-200:]}")
