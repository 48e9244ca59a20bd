"""A Ray cluster of several nodes on this machine: each is a `ray start` with its own address."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from tests.ray.running import variables, wait_for
from tgi.ray import cluster
from tgi.ray.ports import free_ports
from tgi.ray.server import descendants

START_S = 120
PORTS = ("RAY_SERVE_WORKER_PROXY_HTTP_PORT", *cluster.PORTS)
"""That nodes of one machine may not share."""
SETTINGS = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
}
"""The last two are how soon the loss of a node is seen."""


class Node:
    """One node; its processes are those below `process`."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, log: Path) -> None:
        self.process, self.address, self.log = process, address, log
        self.gone = False

    def kill(self) -> None:
        """As when the machine loses its power: all processes, servers of replicas included."""
        self.gone = True
        for pid in reversed(descendants(self.process.pid)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


class Nodes:
    """The cluster; use as `with`. Nodes have the addresses 127.0.0.2, 127.0.0.3 ..., all of them of this machine."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._stack = ExitStack()
        self.nodes: list[Node] = []
        self.port, self.dashboard, self.http, self.client = free_ports(4)
        self.address = f"127.0.0.2:{self.port}"
        self.url = f"http://127.0.0.1:{self.http}"
        """Where Serve listens on the first node, once something is deployed."""

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *error: object) -> None:
        for node in reversed(self.nodes):
            if not node.gone:
                node.kill()

    def add(self, cpus: int, environment: Mapping[str, str] | None = None, *, memory: int = 4 << 30) -> Node:
        """Start a node, the first one of them the head. cpus, memory: what its replicas may take."""
        number = len(self.nodes) + 2
        address = f"127.0.0.{number}"
        home = self._place / f"node{number}"
        home.mkdir()
        log = home / "log"
        words = ["--block", f"--node-ip-address={address}", f"--num-cpus={cpus}", f"--memory={memory}"]
        words += ["--object-store-memory=100000000", "--min-worker-port=0", "--max-worker-port=0"]
        agent, *ports = free_ports(1 + len(PORTS))
        numbers = dict(zip(PORTS, map(str, ports), strict=True))
        words += [f"--dashboard-agent-listen-port={agent}", "--disable-usage-stats"]
        if self.nodes:
            words.append(f"--address={self.address}")
        else:
            words += ["--head", f"--port={self.port}", f"--dashboard-port={self.dashboard}"]
            words += [f"--ray-client-server-port={self.client}"]
        with log.open("w") as out:
            process = subprocess.Popen(
                [str(Path(sys.executable).with_name("ray")), "start", *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**variables(home), **SETTINGS, **numbers, **(environment or {})},
                start_new_session=True,
            )
        node = Node(process, address, log)
        self.nodes.append(node)

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return "Ray runtime started" in log.read_text()

        wait_for(ready, START_S)
        return node

    def serve(self, *words: str) -> str:
        """Run Serve's command line; gives what it printed."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("serve")), *words, "--address", f"http://127.0.0.1:{self.dashboard}"],
            env=variables(self._place),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def applications(self) -> dict[str, Any]:
        """As Serve's own REST interface tells of them."""
        answer = httpx.get(
            f"http://127.0.0.1:{self.dashboard}/api/serve/applications/", timeout=30, trust_env=False
        ).raise_for_status()
        return answer.json()["applications"]

    def actors(self, application: str, deployment: str) -> list[dict[str, Any]]:
        """Serve's replicas of a deployment, those that run."""
        found = self.applications.get(application, {}).get("deployments", {}).get(deployment, {}).get("replicas", [])
        return [one for one in found if one["state"] == "RUNNING"]


def flags(nodes: Nodes, *more: str) -> Sequence[str]:
    """Of `tgi deploy` on the cluster."""
    return ("--ray-address", nodes.address, "--threads=1", "--memory=1GiB", *more)
