"""Ours and what a user would pick instead, side by side in one run.

    python -m benchmarks.peers                                       # all shapes, widths and peers that are there
    python -m benchmarks.peers --shapes smollm2-135m --widths int8 --peers openvino --no-http --repetitions 1

Engines in process by each peer's fastest path (`peer_engines`), then servers under the same load client
(`peer_servers`). Each repetition asks all of them in turn; those not asked are stopped meanwhile. Writes
RESULTS.md and RESULTS.json: a run replaces the rows it measured and leaves the others, and ratios are
always of one run (`peer_rows`). `peer_setup` installs peers.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import shlex
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from benchmarks.checkpoints import SHAPES
from benchmarks.peer_engines import Engine, EngineError, make
from benchmarks.peer_load import Others, wait_quiet
from benchmarks.peer_quality import load_quality
from benchmarks.peer_report import WIDTHS, page
from benchmarks.peer_rows import OURS, Row, Run, load, save
from benchmarks.peer_servers import SERVING, Server
from benchmarks.peer_setup import DEFAULT_HOME, WEIGHTS, Home
from tgi import __version__

QUIET_S = 0.5
Started = TypeVar("Started", Engine, Server)


@dataclass
class Figures:
    """The figures of a run as they come in."""

    run: str
    shape: str
    width: str
    values: dict[tuple[str, str, str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    busy: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))

    def note(self, path: str, peer: str, metric: str, concurrency: int, value: float) -> None:
        if math.isfinite(value):  # else there was nothing to measure, such as a moment in which all streams decode
            self.values[path, peer, metric, concurrency].append(value)

    def rows(self) -> Iterator[Row]:
        for (path, peer, metric, concurrency), values in self.values.items():
            yield Row(
                run=self.run,
                shape=self.shape,
                width=self.width,
                path=path,
                peer=peer,
                weights=WEIGHTS[peer][self.width],
                metric=metric,
                concurrency=concurrency,
                values=[float(f"{value:.5g}") for value in values],
                busy=round(self.busy[path, peer], 3),
            )


@dataclass
class Comparison:
    """One run: what to measure, and what it found out on the way."""

    id: str
    home: Home
    cores: list[int]
    concurrencies: list[int]
    repetitions: int
    quiet_s: float
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def engines(self, figures: Figures, peers: Sequence[str]) -> None:
        """Everything in process for one shape and width."""

        def start(peer: str) -> Engine:
            engine = make(peer, self.home, self._model(peer, figures), figures.width, self.cores)
            self.versions[peer] = engine.version
            engine.prefill()
            engine.decode(1)
            engine.pause()
            return engine

        def measure(peer: str, engine: Engine) -> None:
            engine.resume()
            figures.note("engine", peer, "prefill_tps", 1, engine.prefill())
            for count in self.concurrencies:
                figures.note("engine", peer, "decode_tps", count, engine.decode(count))
            engine.pause()

        def end(peer: str, engine: Engine) -> None:
            figures.note("engine", peer, "rss_mib", 0, engine.rss_mib())

        self._alternate(figures, "engine", peers, start, measure, end)

    def servers(self, figures: Figures, peers: Sequence[str]) -> None:
        """Everything over HTTP for one shape and width."""

        def start(peer: str) -> Server:
            server = Server(peer, self.home, self._model(peer, figures), figures.width, self.cores)
            server.burst(1)
            return server

        def measure(peer: str, server: Server) -> None:
            for count in self.concurrencies:
                seen = server.burst(count)
                figures.note("http", peer, "ttft_ms", count, seen.ttft_ms.p50)
                figures.note("http", peer, "itl_ms", count, seen.itl_ms.p50)
                figures.note("http", peer, "decode_tps", count, seen.decode_tps)
                figures.note("http", peer, "total_tps", count, seen.total_tps)
                figures.note("http", peer, "client_cpu", count, seen.client_cpu)
            server.note_memory()

        def end(peer: str, server: Server) -> None:
            figures.note("http", peer, "pss_mib", 0, server.pss_mib)

        self._alternate(figures, "http", [peer for peer in peers if peer in SERVING], start, measure, end)

    def _alternate(
        self,
        figures: Figures,
        path: str,
        peers: Sequence[str],
        start: Callable[[str], Started],
        measure: Callable[[str, Started], None],
        end: Callable[[str, Started], None],
    ) -> None:
        """All are started first; then each repetition goes round, from another one each time."""
        running: dict[str, Started] = {}

        def attempt(peer: str, action: Callable[[], None]) -> None:
            try:
                action()
            except EngineError as error:
                self._tell(f"{figures.shape} {figures.width}, {peer} left out: {error}")
                if peer in running:
                    running.pop(peer).close()

        try:
            for peer in peers:
                attempt(peer, lambda peer=peer: running.update({peer: start(peer)}))
            for number in range(self.repetitions):
                order = list(running)
                shift = number % max(1, len(order))
                for peer in order[shift:] + order[:shift]:
                    print(f"{figures.shape} {figures.width} {peer}: {number + 1} of {self.repetitions}", flush=True)
                    busy = self._quiet()
                    others = Others()
                    attempt(peer, lambda peer=peer: measure(peer, running[peer]))
                    figures.busy[path, peer] = max(figures.busy[path, peer], busy, others.share())
            for peer, one in running.items():
                end(peer, one)
        finally:
            for one in running.values():
                one.close()

    def _model(self, peer: str, figures: Figures) -> Path:
        return self.home.model(peer, figures.shape, figures.width)

    def _quiet(self) -> float:
        return wait_quiet(lambda: psutil.cpu_percent(QUIET_S) / 100, self.quiet_s)

    def _tell(self, note: str) -> None:
        print(note, file=sys.stderr, flush=True)
        self.notes.append(note)


def host(cores: Sequence[int]) -> dict[str, str]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    lines = dict(line.split(":", 1) for line in info if ":" in line)
    fields = {name.strip(): value.strip() for name, value in lines.items()}
    wanted = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16")
    flags = set(fields.get("flags", "").split())
    return {
        "processor": fields.get("model name", platform.processor()),
        "cores used": f"{len(cores)} of {os.cpu_count()}",
        "instructions": " ".join(name for name in wanted if name in flags),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }


def commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def arguments_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def names(known: Sequence[str]) -> Callable[[str], list[str]]:
        def parse(value: str) -> list[str]:
            if unknown := set(value.split(",")) - set(known):
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: none of {', '.join(known)}")
            return [name for name in known if name in value.split(",")]

        return parse

    peers = [peer for peer in WEIGHTS if peer != OURS]
    parser.add_argument("--shapes", type=names(list(SHAPES)), default=list(SHAPES), help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--peers", type=names(peers), default=peers, help=f"beside ours, of {', '.join(peers)}")
    parser.add_argument("--widths", type=names(list(WIDTHS)), default=list(WIDTHS), help=f"of {', '.join(WIDTHS)}")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("-c", "--concurrency", default="1,4,8,16", help="comma list")
    parser.add_argument("--engine", action=argparse.BooleanOptionalAction, default=True, help="measure in process")
    parser.add_argument("--http", action=argparse.BooleanOptionalAction, default=True, help="measure servers")
    parser.add_argument("--cores", type=int, default=2, help="how many, for the measured and the client together")
    parser.add_argument("--quiet", type=float, default=30.0, metavar="S", help="wait so long for other load to end")
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME, help="where the peers are")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS.md"), help="and .json beside it")
    return parser.parse_args(words)


def main() -> None:
    arguments = arguments_of()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends servers and workers on the way out
    cores = sorted(os.sched_getaffinity(0))[: arguments.cores]
    os.sched_setaffinity(0, cores)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    comparison = Comparison(
        id=now,
        home=Home(arguments.home),
        cores=cores,
        concurrencies=list(map(int, arguments.concurrency.split(","))),
        repetitions=arguments.repetitions,
        quiet_s=arguments.quiet,
        versions={OURS: __version__},
    )
    present = [OURS]
    for peer in arguments.peers:
        missing = comparison.home.missing(peer)
        if missing:
            print(missing, file=sys.stderr)
            comparison.notes.append(missing)
        else:
            present.append(peer)
    for shape in arguments.shapes:
        for width in arguments.widths:
            figures = Figures(now, shape, width)
            peers = [peer for peer in present if width in WEIGHTS[peer]]
            for peer in peers:
                comparison.home.model(peer, shape, width)
            if arguments.engine:
                comparison.engines(figures, peers)
            if arguments.http:
                comparison.servers(figures, peers)
            write(comparison, figures, arguments.out)


def write(comparison: Comparison, figures: Figures, out: Path) -> None:
    """After each shape and width, so that a run that is stopped keeps what it measured."""
    run = Run(
        id=comparison.id,
        commit=commit(),
        host=host(comparison.cores),
        versions=dict(comparison.versions),
        repetitions=comparison.repetitions,
        command=shlex.join(["python", "-m", "benchmarks.peers", *sys.argv[1:]]),
        notes=list(comparison.notes),
    )
    data = out.with_suffix(".json")
    results = load(data).merged(run, figures.rows())
    save(data, results)
    out.write_text(page(results, load_quality()), encoding="utf-8")


if __name__ == "__main__":
    main()
