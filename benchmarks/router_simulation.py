"""Routing on paper: thousands of replicas as discrete events, and the router's own code in front of them.

Ways to choose are compared on the same conversations: routers as `tgi route` has them (several, each with a part of the
requests, figures that are as old as the heartbeat makes them), one router that knows every cache and every queue at
every moment, one that sends each request to the replica that is least busy at that moment, and as many routers as there
are that do the same with the routers' figures. `router_world` has what is simulated, `router_policies` the ways.

    python -m benchmarks.router_simulation                       # 1,000 replicas, 100,000 conversations, 4 routers
    python -m benchmarks.router_simulation --growth --plot docs/routing.svg
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.router_policies import POLICIES
from benchmarks.router_world import Outcome, Simulation, World


def simulate(world: World, names: Sequence[str] = tuple(POLICIES)) -> dict[str, Outcome]:
    """The same conversations, each way."""
    return {name: Simulation(world, name, POLICIES[name]).run() for name in names}


def table(world: World, outcomes: dict[str, Outcome]) -> Table:
    shown = Table(title=f"{world.replicas} replicas, {world.conversations} conversations, {world.routers} routers")
    columns = (
        "choice",
        "hits",
        "of all-knowing",
        "p99 wait s",
        "of told",
        "p99 first s",
        "of told ",
        "most load",
        "us",
    )
    for column in (*columns, "index MB"):
        shown.add_column(column, justify="left" if column == "choice" else "right")
    best, fair = outcomes["all-knowing"], outcomes["least busy, told"]
    for one in outcomes.values():
        shown.add_row(
            one.name,
            f"{one.hit_rate:.3f}",
            f"{one.hit_rate / best.hit_rate:.3f}",
            f"{one.p99_wait:.2f}",
            f"{one.p99_wait / fair.p99_wait:.2f}",
            f"{one.p99_first:.2f}",
            f"{one.p99_first / fair.p99_first:.2f}",
            f"{max(one.load) / np.mean(one.load):.2f}",
            f"{one.decision_us:.0f}" if one.decisions else "",
            f"{one.index_bytes / 1e6:.0f}" if one.index_bytes else "",
        )
    return shown


def plot(path: Path, sizes: Sequence[int], all_outcomes: Sequence[dict[str, Outcome]]) -> None:
    """Four panels over the number of replicas; white behind, so that it can be read on dark pages too."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    hits, wait, first, decision = figure.subplots(2, 2).flat
    for name in POLICIES:
        for axes, what in (
            (hits, lambda one: one.hit_rate),
            (wait, lambda one: one.p99_wait),
            (first, lambda one: one.p99_first),
        ):
            axes.plot(sizes, [what(one[name]) for one in all_outcomes], marker="o", label=name)
    decision.plot(sizes, [one["routers"].decision_us for one in all_outcomes], marker="o")
    for axes, title in (
        (hits, "Repeated prompt tokens that are found"),
        (wait, "p99 of the wait for the replica, s"),
        (first, "p99 until the prompt is computed, s"),
        (decision, "One decision of a router, us of processor time"),
    ):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("replicas")
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    hits.legend(fontsize=8)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--conversations", type=int, help="default: 100 for each replica")
    parser.add_argument("--routers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=World.rate, help="requests a second for each replica")
    parser.add_argument("--growth", action="store_true", help="from 10 replicas to --replicas")
    parser.add_argument("--plot", type=Path)
    flags = parser.parse_args()
    sizes = [size for size in (10, 30, 100, 300) if size < flags.replicas] if flags.growth else []
    sizes.append(flags.replicas)
    console, found = Console(), []
    for size in sizes:
        world = World(size, flags.conversations or 100 * size, flags.routers, flags.rate)
        begin = time.process_time()
        found.append(simulate(world))
        console.print(table(world, found[-1]))
        console.print(f"{time.process_time() - begin:.0f} s of processor time")
    if flags.plot is not None:
        plot(flags.plot, sizes, found)


if __name__ == "__main__":
    main()
