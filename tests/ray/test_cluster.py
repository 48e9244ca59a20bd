"""On a Ray cluster that was there before: joined by `tgi deploy`, given a Serve config file, and losing a node."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.fake_hub import FakeHub, Repo
from tests.ray.nodes import Node, Nodes, flags
from tests.ray.running import CHAT, Deployment, Load, deployed, variables, wait_for
from tests.replicas.streams import streams
from tgi import children
from tgi.hub.prepare import demo_directory
from tgi.ray.ports import free_ports

pytest.importorskip("ray.serve", reason="Ray is not installed: pip install 'text-generation-inference[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with Nodes(tmp_path) as nodes:
        yield nodes


def tgi_deploy(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        children.python("tgi", "deploy", *words), env=variables(place), capture_output=True, text=True, check=False
    )


def test_what_is_deployed_goes_and_the_cluster_stays(tmp_path: Path, nodes: Nodes) -> None:
    nodes.add(2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_ports(1)[0]))
        taken.listen()
        port = str(taken.getsockname()[1])
        failed = tgi_deploy(tmp_path, "tgi-demo", *flags(nodes, "--port", port))
        assert failed.returncode == 1 and "cannot bind" in failed.stderr.splitlines()[-1]
    for how in (signal.SIGINT, signal.SIGTERM):  # the second one on another port: the first left nothing of Serve
        with deployed(tmp_path, "tgi-demo", *flags(nodes)) as deployment:
            assert deployment.chat(max_tokens=3).status_code == 200
            told = tgi_deploy(deployment.place, "status")
            assert nodes.address in told.stdout and deployment.replicas[0]["url"] in told.stdout
            assert deployment.replicas[0]["url"].startswith("http://127.0.0.2:")
            other = tgi_deploy(tmp_path, "tgi-demo", *flags(nodes, "--port", str(free_ports(1)[0]), "--name", "other"))
            assert other.returncode == 1 and f"port {deployment.port}`" in other.stderr.replace("--port ", "port ")
            same = tgi_deploy(tmp_path, "tgi-demo", *flags(nodes, "--port", str(deployment.port), "--name", "other"))
            assert same.returncode == 1 and 'used by application "tgi"' in same.stderr.splitlines()[-1]
            assert "Traceback" not in same.stderr
            assert deployment.chat(max_tokens=3).status_code == 200
            answers, threads = streams(deployment.url, 3, 400)
            for answer in answers:
                assert answer.begun.wait(60)
            deployment.process.send_signal(how)
            for thread in threads:
                thread.join()
            assert all(answer.whole for answer in answers), "open answers end first"
            assert deployment.process.wait(timeout=150) == 0
        assert not nodes.applications
        assert nodes.nodes[0].process.poll() is None
    failed = tgi_deploy(tmp_path, "tgi-demo", *flags(nodes, "--tokenizer-config-path", "/no/such"))
    assert failed.returncode == 1 and "/no/such" in failed.stderr
    wait_for(lambda: not nodes.applications)


def replica_of(url: str, model: str) -> str:
    answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT | {"model": model, "max_tokens": 3}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-tgi-replica"]


def test_a_change_of_a_config_file_replaces_the_changed_model_alone(tmp_path: Path, nodes: Nodes) -> None:
    content: dict[str, Any] = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    router, model = content["applications"]
    changes = {"model-id": "tgi-demo", "min-replicas": 1, "max-replicas": 1, "cpus": 1, "memory": "1GiB"}
    content["http_options"] = {"host": "127.0.0.1", "port": nodes.http}
    content["applications"] = [router]
    for name in ("first", "second"):
        content["applications"].append(
            {**model, "name": f"tgi-{name}", "args": {**model["args"], **changes, "served-name": name}}
        )
    router["args"]["models"] = {"first": "tgi-first", "second": "tgi-second"}
    file = tmp_path / "serve.yaml"

    def deploy() -> None:
        file.write_text(yaml.safe_dump(content))
        nodes.serve("deploy", str(file))

    nodes.add(4)
    deploy()
    wait_for(lambda: all(one["status"] == "RUNNING" for one in nodes.applications.values()), 240)
    url = nodes.url
    wait_for(lambda: httpx.get(f"{url}/v1/models").status_code == 200)
    listed = httpx.get(f"{url}/v1/models").json()["data"]
    assert [one["id"] for one in listed] == ["first", "second"]
    before = {name: replica_of(url, name) for name in ("first", "second")}
    with Load(url, 4, model="first") as untouched, Load(url, 2, model="second") as changed:
        content["applications"][2]["args"]["max-total-tokens"] = 512
        deploy()
        wait_for(lambda: replica_of(url, "second") != before["second"], 240)
        wait_for(lambda: len(nodes.actors("tgi-second", "Engine")) == 1, 120)
    assert replica_of(url, "first") == before["first"]
    for load in (untouched, changed):
        assert not load.broken and load.whole > 2
    assert httpx.get(f"{url}/v1/models").json()["data"][1]["max_model_len"] == 512
    nodes.serve("shutdown", "-y")


def test_nodes_share_replicas_fetch_once_each_and_may_die(tmp_path: Path, nodes: Nodes) -> None:
    with FakeHub() as hub:
        hub.repos["org/demo"] = Repo({file.name: file.read_bytes() for file in demo_directory().iterdir()})
        at = {"HF_ENDPOINT": hub.url}

        def add() -> Node:
            """Nodes of one machine have one disk: what tells them apart are the places of files and of locks."""
            cache = tmp_path / f"cache{len(nodes.nodes)}"
            cache.mkdir()
            return nodes.add(2, at | {"HF_HOME": str(cache), "TMPDIR": str(cache)})

        nodes.add(0, at)
        for _ in range(2):
            add()
        alone = tgi_deploy(tmp_path, "tgi-demo", *flags(nodes))
        assert alone.returncode == 1 and "give --hostname 0.0.0.0" in alone.stderr
        words = flags(nodes, "--hostname=0.0.0.0", "--replicas=4", "--model-id=org/demo", "--served-name=demo")
        with deployed(tmp_path, *words, environment=at | {"HF_HOME": str(tmp_path / "driver")}) as deployment:
            by_node: dict[str, list[dict[str, Any]]] = {}
            for one in deployment.replicas:
                by_node.setdefault(one["url"].rpartition(":")[0], []).append(one)
            assert sorted(map(len, by_node.values())) == [2, 2], "each node has its half"
            assert len(hub.transfers("model.safetensors")) == 2, "one of the two replicas of a node fetches"
            kill_one_node(nodes, deployment)
            new = add()
            wait_for(lambda: sum(new.address in one["url"] for one in deployment.replicas) == 2, 240)
            assert len(hub.transfers("model.safetensors")) == 3
            assert deployment.chat(max_tokens=3).status_code == 200
            (router,) = nodes.actors("tgi", "Router")
            for node in nodes.nodes[1:]:  # the head is not lost: Ray has its state there
                if node.address == router["node_ip"]:
                    node.kill()
            wait_for(lambda: serves(deployment), 120)


def serves(deployment: Deployment) -> bool:
    try:
        return deployment.chat(max_tokens=3).status_code == 200
    except httpx.HTTPError:
        return False


def kill_one_node(nodes: Nodes, deployment: Deployment) -> None:
    """One that has not the router, while streams run on both; the directory may be there, and comes back."""
    (router,) = nodes.actors("tgi", "Router")
    victim = next(node for node in nodes.nodes[1:] if node.address != router["node_ip"])
    answers, threads = streams(deployment.url, 24, 600)
    for answer in answers:
        assert answer.begun.wait(60)
    victim.kill()
    for thread in threads:
        thread.join()
    there = [answer for answer in answers if answer.replica.startswith(f"{victim.address}:")]
    others = [answer for answer in answers if answer not in there]
    assert there and others
    assert all(answer.whole for answer in others)
    assert not [answer.data[-200:] for answer in there if not (answer.whole or answer.ended_with_an_error_event)]
    assert any(answer.ended_with_an_error_event for answer in there)
    wait_for(lambda: all(victim.address not in one["url"] for one in deployment.replicas), 60)
    assert deployment.chat(max_tokens=3).status_code == 200
