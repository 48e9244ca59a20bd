"""Two checkouts measured by turns on this machine: is the new one at least as fast as the old one?

    git worktree add ../old REVISION && (cd ../old && python setup.py build_ext --inplace)
    python -m benchmarks.by_turns ../old . --quantize int8

Each turn is a process of its own that loads the model from one checkout and measures prefill and decode in it; the
order swaps from turn to turn, so that drift of the machine falls on both. Printed: the median of the new divided by
the median of the old (above 1 the new one is faster), and how far the turns of one checkout lie apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.checkpoints import SHAPES, ensure

# Runs inside a checkout, with that checkout's packages: prints one JSON object.
TURN = """
import json, sys, time
from benchmarks.engine import EngineConfig, measure
from tgi.engine.core import EngineCore
from tgi.engine.main import make_scheduler
from tgi.engine.worker import Worker

wanted = json.loads(sys.argv[1])
began = time.perf_counter()
worker = Worker(EngineConfig(device="cpu", max_total_tokens=4096, prefix_caching=False, **wanted["config"]))
rows = {"load": 1 / (time.perf_counter() - began)}
info = worker.info
for concurrency in wanted["concurrency"]:
    core = EngineCore(make_scheduler(info), worker)
    row = measure(core, concurrency, 128, wanted["new"], info.vocab_size)
    rows[f"decode at {concurrency}"] = row["decode"]
    rows[f"rest of step at {concurrency}"] = 1 / (row["step"] * row["outside"])
core = EngineCore(make_scheduler(info), worker)
rows["prefill 512"] = measure(core, 1, 512, 1, info.vocab_size)["prefill"]
print(json.dumps(rows))
"""


def turn(checkout: Path, wanted: dict[str, object]) -> dict[str, float]:
    """Figures of one turn in `checkout`, each the higher the better."""
    paths = {"PYTHONPATH": os.pathsep.join([str(checkout / "src"), str(checkout)]), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TURN, json.dumps(wanted)],
        cwd=checkout,
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--shape", default="smollm2-135m", choices=list(SHAPES))
    parser.add_argument("--model-id", type=Path, help="a checkpoint directory in place of --shape")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--quantize")
    parser.add_argument("-c", "--concurrency", default="1,16", help="comma list")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--turns", type=int, default=7, help="turns of each checkout")
    arguments = parser.parse_args()
    path = arguments.model_id or ensure(arguments.shape)
    wanted = {
        "config": {"model_path": str(path.resolve()), "dtype": arguments.dtype, "quantize": arguments.quantize},
        "concurrency": [int(part) for part in arguments.concurrency.split(",")],
        "new": arguments.new_tokens,
    }
    checkouts = [arguments.old.resolve(), arguments.new.resolve()]
    turns: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in checkouts}
    for number in range(arguments.turns):
        for checkout in checkouts if number % 2 else reversed(checkouts):
            turns[checkout].append(turn(checkout, wanted))
    old, new = (turns[checkout] for checkout in checkouts)
    table = Table(
        title=f"{path.name} {arguments.dtype} {arguments.quantize or ''}: new / old of {arguments.turns} turns"
    )
    for column in ("figure", "old", "new", "new / old", "spread old", "spread new"):
        table.add_column(column, justify="right")
    for name in new[0]:
        before, after = ([row[name] for row in rows] for rows in (old, new))
        medians = statistics.median(before), statistics.median(after)
        spreads = [f"{max(values) / min(values) - 1:.1%}" for values in (before, after)]
        table.add_row(name, *(f"{value:.2f}" for value in medians), f"{medians[1] / medians[0]:.3f}", *spreads)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
