"""`tgi ps`: the servers of this user on this machine, and how busy they are.

Which there are is `launcher.registry`'s to know; how busy they are they tell themselves, over HTTP.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from tgi.commands.columns import columns, duration
from tgi.commands.ending import show
from tgi.commands.simple_flags import simple_flags
from tgi.launcher.registry import ANY, Running, running

COMMAND = "tgi ps"
HELP = """\
List the servers of this user on this machine.

Usage: tgi ps [OPTIONS]

Shows process, model, address, how long it has run, and how many requests run and wait. A server that still loads its
model says `starting`. Servers in containers and of other users are not listed.

Options:
  --json         Print the list as JSON
  -h, --help     Print this text"""
PATIENCE_S = 1.0
"""For a server to answer."""
GAUGES = {"tgi_batch_current_size": "running", "tgi_queue_size": "queued"}
"""Lines of /metrics that are wanted -> what they are called here."""


class Load(msgspec.Struct, frozen=True):
    """How busy a server is."""

    state: str
    """ready, starting, or silent: it does not answer."""
    running: int = 0
    queued: int = 0


def ps(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """Exit status 0. Raises UsageError."""
    flags = simple_flags(words, HELP, switches=("--json",))
    if flags is None:
        return 0
    found = running(variables)
    with ThreadPoolExecutor(16) as threads:
        loads = list(threads.map(load_of, found))
    if "--json" in flags.given:
        listed = [
            {**msgspec.to_builtins(server), "url": server.url, **msgspec.to_builtins(load)}
            for server, load in zip(found, loads, strict=True)
        ]
        show(msgspec.json.format(msgspec.json.encode(listed)).decode())
        return 0
    rows = [_row(server, load) for server, load in zip(found, loads, strict=True)]
    show(columns(("PID", "MODEL", "ADDRESS", "UP FOR", "RUNNING", "QUEUED"), rows, right=(0, 4, 5)))
    return 0


def load_of(server: Running) -> Load:
    """What the server says of itself; it may have just ended."""
    connection = http.client.HTTPConnection(ANY.get(server.host, server.host), server.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode("utf-8", "replace")
    except ConnectionRefusedError:
        return Load("starting")  # the port is taken before the model is loaded, and listened on after that
    except (OSError, http.client.HTTPException):
        return Load("silent")
    finally:
        connection.close()
    counts = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in GAUGES:
            counts[GAUGES[name]] = int(float(value))
    return Load("ready", **counts)


def _row(server: Running, load: Load) -> tuple[str, ...]:
    ready = load.state == "ready"
    busy = (str(load.running), str(load.queued)) if ready else (load.state, "-")
    return (str(server.pid), server.model, server.url, duration(time.time() - server.started), *busy)
