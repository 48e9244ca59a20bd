"""Where the time goes from the command to `Connected`.

Starts the launcher several times (the demo model, or --model-id) and reads the moments at which its log
lines come; then the imports alone, each in a fresh interpreter. Medians; the first start, which may find
nothing in the page cache, is shown apart. Target for the demo model: below 4 seconds.
"""

from __future__ import annotations

import argparse
import re
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

TARGET_S = 4.0
PHASES = (
    ("Args", "interpreter, flags, hardware"),
    ("Starting shard", "model files, both configurations"),
    ("Kernels", "engine: interpreter, torch, config.json, native library"),
    ("Loaded", "engine: weights"),
    ("Shard ready", "engine: KV cache, warm-up; HTTP process: imports, tokenizer"),
    ("Connected", "application, port"),
)
"""A line of the log, and what happened since the line before."""
IMPORTS = (
    "tgi.commands.cli",
    "tgi.launcher.supervisor",
    "tgi.api.app",
    "tgi.engine.main",
    "torch",
    "tgi.engine.worker",
)


@dataclass
class Start:
    """Seconds since the command, by line of the log."""

    moments: dict[str, float]

    @property
    def total(self) -> float:
        return self.moments["Connected"]


def start(arguments: list[str], timeout_s: float) -> Start:
    """One start, ended as soon as it is connected. Raises SystemExit with the log when it fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.monotonic()
    command = [sys.executable, "-m", "tgi", "serve", "--port", str(port), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    moments: dict[str, float] = {}
    log = []
    try:
        for line in process.stdout:
            log.append(line)
            for name, _ in PHASES:
                if name not in moments and re.search(rf": {name}\b", line):
                    moments[name] = time.monotonic() - began
            if "Connected" in moments or time.monotonic() - began > timeout_s:
                break
    finally:
        process.terminate()
        process.communicate(timeout=30)
    if "Connected" not in moments:
        raise SystemExit("the server did not start:\n" + "".join(log))
    return Start(moments)


def import_seconds(module: str) -> float:
    """Of a fresh interpreter that imports one module, less one that imports nothing."""

    def run(code: str) -> float:
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.monotonic() - began

    return statistics.median(run(f"import {module}") for _ in range(3)) - run("pass")


def report(starts: list[Start], console: Console) -> None:
    first, later = starts[0], starts[1:] or starts
    table = Table(title="From the command to Connected, seconds")
    for column in ("until", "first start", "at (median)", "took", "what happened"):
        table.add_column(column, justify="left" if column in ("until", "what happened") else "right")
    before = 0.0
    for name, what in PHASES:
        moment = statistics.median(one.moments.get(name, before) for one in later)
        table.add_row(name, f"{first.moments.get(name, 0.0):.2f}", f"{moment:.2f}", f"{moment - before:.2f}", what)
        before = moment
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-id", help="a checkpoint directory in place of the demo model")
    parser.add_argument("--quantize")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for one start")
    parser.add_argument("--imports", action="store_true", help="also time the imports alone")
    arguments = parser.parse_args()
    flags = ["--model-id", arguments.model_id] if arguments.model_id else []
    flags += ["--quantize", arguments.quantize] if arguments.quantize else []
    console = Console(width=120)
    starts = [start(flags, arguments.timeout) for _ in range(arguments.repetitions)]
    report(starts, console)
    if arguments.imports:
        for module in IMPORTS:
            console.print(f"import {module}: {import_seconds(module):.2f} s")
    total = statistics.median(one.total for one in (starts[1:] or starts))
    console.print(f"Connected after {total:.2f} s (target for the demo model: {TARGET_S:g} s)")
    sys.exit(total >= TARGET_S and not arguments.model_id)


if __name__ == "__main__":
    main()
