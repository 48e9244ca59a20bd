"""What people see of a deployment: the table of what runs where."""

from __future__ import annotations

import time

from tgi.commands.columns import columns, duration
from tgi.ray.state import State
from tgi.shorten import size

HEAD = ("MODEL", "REVISION", "REPLICA", "NODE", "ADDRESS", "CORES", "GPUS", "MEMORY")


def table(state: State) -> str:
    """One line a replica."""
    if not state.replicas:
        return "No replica runs."
    rows = [
        (
            str(one["model"]),
            str(one["revision"]) or "-",
            str(one["replica"]),
            str(one["node"]),
            str(one["url"]),
            str(one["cpus"]),
            str(one["gpus"]) if one["gpus"] else "-",
            size(int(one["memory"])) if one["memory"] else "-",
        )
        for one in state.replicas
    ]
    return columns(HEAD, rows, right=(5, 6, 7))


def heading(state: State) -> str:
    """Whose table it is."""
    if not state.ready:
        return f"{state.name}: starting"
    where = f", Ray at {state.cluster}" if state.cluster else ""
    return f"{state.name}: {state.url}, up for {duration(time.time() - state.started)}, process {state.pid}{where}"
