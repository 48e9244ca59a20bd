#!/usr/bin/env python3
"""Train the bundled demo model from nothing, or measure a trained one.

The model learns only from text that the files in demo write, so this
command needs no download.  It has four parts:

  train      learn the vocabulary, train the weights, write a model folder
  evaluate   score a model folder on the held-out prompts, by category
  prompts    write the held-out prompts to a file
  sample     print some training documents

Examples:

  python tools/train_demo.py train --out /tmp/demo --steps 2900
  python tools/train_demo.py train --out /tmp/demo --minutes 5 --seed 7
  python tools/train_demo.py evaluate --model src/tgi/demo --show-wrong
  python tools/train_demo.py sample --count 20

It needs torch, transformers, tokenizers and rich.
"""

from __future__ import annotations

import argparse
import os
import sys
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = ROOT / "tests" / "data" / "demo_prompts.jsonl"
DEFAULT_STEPS = 2900


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a model and write it to a folder")
    train.add_argument("--out", type=Path, required=True, help="folder for the model; made if missing")
    train.add_argument(
        "--seed", type=int, default=0, help="of weights and text; the same seed and steps give the same run (default 0)"
    )
    train.add_argument("--steps", type=int, default=0, help=f"steps of 4096 tokens (default {DEFAULT_STEPS})")
    train.add_argument(
        "--minutes", type=float, default=0.0, help="train for this long instead of a number of steps; not repeatable"
    )
    train.add_argument(
        "--precision", choices=("auto", "bf16", "fp32"), default="auto", help="auto: bf16 where the processor has AMX"
    )
    train.add_argument(
        "--checkpoint", type=int, default=0, metavar="STEPS", help="also write the model every so many steps"
    )
    train.add_argument("--resume", type=Path, help="go on from the weights in this folder instead of random ones")
    train.add_argument("--begin", type=float, default=0.0, help="with --resume: how far the run was, from 0 to 1")
    train.add_argument("--threads", type=int, default=2, help="threads to compute with (default 2)")
    evaluate = commands.add_parser("evaluate", help="score a model on the held-out prompts")
    evaluate.add_argument(
        "--model", type=Path, default=ROOT / "src" / "tgi" / "demo", help="model folder (default: the bundled one)"
    )
    evaluate.add_argument("--prompts", type=Path, default=PROMPTS, help="file of prompts, one JSON object to a line")
    evaluate.add_argument("--show-wrong", action="store_true", help="print every wrong answer")
    prompts = commands.add_parser("prompts", help="write the held-out prompts")
    prompts.add_argument("--out", type=Path, default=PROMPTS)
    sample = commands.add_parser("sample", help="print training documents")
    sample.add_argument("--count", type=int, default=10)
    sample.add_argument("--seed", type=int, default=0)
    return top


def run_train(options: argparse.Namespace) -> None:
    """Train with a progress bar that shows loss and speed."""
    # Threads that spin while they wait stall the run whenever other programs need a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from demo.train import Plan, Report, train
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console()
    steps = options.steps or (0 if options.minutes else DEFAULT_STEPS)
    plan = Plan(
        seed=options.seed,
        steps=steps,
        minutes=options.minutes,
        precision=options.precision,
        threads=options.threads,
        checkpoint=options.checkpoint,
        resume=options.resume,
        begin=options.begin,
    )
    columns = (
        TextColumn("training"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}% {task.description}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("starting", total=1.0)

        def show(share: float, report: Report) -> None:
            speed = report.tokens / 60 / max(report.minutes, 0.05)
            bar.update(
                task, completed=share, description=f"step {report.steps}  loss {report.loss:.3f}  {speed:,.0f} tokens/s"
            )
            if not console.is_terminal and report.steps % 50 == 0:
                # A log file gets lines, because a bar cannot be redrawn in it.
                print(f"{share:6.1%}  step {report.steps}  loss {report.loss:.4f}  {report.minutes} min", flush=True)

        report = train(plan, options.out, show)
    console.print(f"{report.steps} steps, {report.tokens:,} tokens, {report.minutes} minutes, {report.precision}")
    console.print(f"loss {report.loss}, validation loss {report.validation_loss}; written to {options.out}")


def run_evaluate(options: argparse.Namespace) -> None:
    """Print the score of a model by category."""
    from demo.evaluate import by_category, evaluate
    from demo.heldout import read
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    console = Console(highlight=False)
    prompts = read(options.prompts)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("answering", total=len(prompts))
        results = evaluate(options.model, prompts, progress=lambda done: bar.advance(task, done))
    table = Table("category", "right", "of", "share", title=str(options.model))
    for name, (right, count) in by_category(results).items():
        table.add_row(name, str(right), str(count), f"{right / count:.0%}", style="bold" if name == "all" else None)
    console.print(table)
    console.print(f"{sum(result.ended for result in results)} of {len(results)} answers ended by themselves")
    for result in results if options.show_wrong else ():
        if not result.right:
            asked = result.prompt.raw or result.prompt.messages[-1]["content"]
            console.print(
                f"[{result.prompt.category}] {asked}\n  expected {result.prompt.expected}\n  answered {result.answer}",
                markup=False,
            )


def run_prompts(options: argparse.Namespace) -> None:
    """Write the file of held-out prompts."""
    from demo.heldout import prompts, write

    write(options.out)
    print(f"{len(prompts())} prompts written to {options.out}")


def run_sample(options: argparse.Namespace) -> None:
    """Print training documents as the model sees them."""
    from demo.corpus import examples
    from demo.tokenizer import plain

    for example in islice(examples(options.seed), options.count):
        print(plain(example).rstrip("\n"), "-" * 40, sep="\n")


def main() -> None:
    """Run the command that was asked for."""
    options = parser().parse_args()
    {"train": run_train, "evaluate": run_evaluate, "prompts": run_prompts, "sample": run_sample}[options.command](
        options
    )


if __name__ == "__main__":
    sys.exit(main())
