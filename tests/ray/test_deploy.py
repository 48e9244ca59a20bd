"""`tgi deploy` on a real Ray: placed, served, scaled, replaced, broken and taken away, with nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.ray.running import Load, alive, deployed, is_engine, variables, wait_for
from tests.replicas.streams import streams
from tgi import children
from tgi.ray.ports import free_ports
from tgi.ray.server import descendants

pytest.importorskip("ray.serve", reason="Ray is not installed: pip install 'text-generation-inference[ray]'")


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except OSError:
        return []


def is_haproxy(line: list[str]) -> bool:
    return bool(line) and line[0].endswith("/haproxy")


@pytest.mark.timeout(400)
def test_a_model_is_served_and_nothing_is_left(tmp_path: Path) -> None:
    with deployed(tmp_path, "tgi-demo", "--served-name", "org/small") as deployment:
        log = deployment.log.read_text()
        (line,) = [line for line in log.splitlines() if line.startswith("org/small ")]
        (replica,) = deployment.replicas
        assert replica["url"] in line and replica["replica"] in line and "MiB" in line
        listed = httpx.get(f"{deployment.url}/v1/models", trust_env=False).json()["data"]
        assert [one["id"] for one in listed] == ["org/small"]
        answer = deployment.chat(max_tokens=5)
        assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] == 5
        assert answer.headers["x-tgi-replica"] == replica["url"].removeprefix("http://")
        assert len(answer.headers.get_list("x-request-id")) == 1
        body = {"inputs": "Hello", "parameters": {"max_new_tokens": 3}}
        for path in ("/generate", "/org/small/generate"):
            assert httpx.post(deployment.url + path, json=body, trust_env=False, timeout=60).status_code == 200
        told = subprocess.run(
            children.python("tgi", "deploy", "status"),
            env=variables(deployment.place),
            capture_output=True,
            text=True,
            check=True,
        )
        assert replica["replica"] in told.stdout
        command = next(filter(is_haproxy, map(command_line, descendants(deployment.process.pid))))
        config = Path(command[command.index("-f") + 1])
        private = config.parent.parent
        assert private.stat().st_mode & 0o777 == 0o700, "others cannot reach the socket that takes commands"
    assert not private.exists()


def write(path: Path, replicas: int, *, revision: str = "one") -> None:
    """The revision of a local model has no effect but that it is another deployment."""
    path.write_text(
        f"models:\n  - {{model-id: tgi-demo, threads: 1, replicas: {replicas}, memory: 1GiB, revision: {revision}}}\n"
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_scaling_and_an_upgrade_under_load_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    write(file, 2)
    with deployed(tmp_path, "--config", str(file)) as deployment:
        first = {one["replica"] for one in deployment.replicas}
        with Load(deployment.url, 6) as load:
            for replicas, revision in ((1, "one"), (2, "one"), (2, "two")):
                before = {one["replica"] for one in deployment.replicas}
                write(file, replicas, revision=revision)
                deployment.process.send_signal(signal.SIGHUP)

                def done(replicas: int = replicas, revision: str = revision) -> bool:
                    now = deployment.replicas
                    return len(now) == replicas and all(one["revision"] == revision for one in now)

                wait_for(done, 200)
                since = load.whole
                wait_for(lambda since=since: load.whole >= since + 12)
                assert before != {one["replica"] for one in deployment.replicas}
        assert not load.broken and load.whole > 30
        assert not first & {one["replica"] for one in deployment.replicas}, "all were replaced"
        file.write_text("models: [{model-id: tgi-demo, repicas: 1}]")
        deployment.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "stays as it is: " in deployment.log.read_text())
        assert deployment.chat(max_tokens=3).status_code == 200


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_first_request_starts_the_first_replica(tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text("""
models:
  - {model-id: tgi-demo, served-name: always, threads: 1, memory: 1GiB}
  - {model-id: tgi-demo, served-name: seldom, threads: 1, memory: 1GiB, replicas: 0, min-replicas: 0, max-replicas: 1,
     scale-down-delay: 5}
""")
    with deployed(tmp_path, "--config", str(file)) as deployment:
        assert [one["model"] for one in deployment.replicas] == ["always"]
        listed = httpx.get(f"{deployment.url}/v1/models", trust_env=False).json()["data"]
        assert [one["id"] for one in listed] == ["always", "seldom"]
        answer = deployment.chat(model="seldom", max_tokens=3)
        assert answer.status_code == 200 and float(answer.headers["x-tgi-waited"]) > 0.5
        unknown = deployment.chat(model="never")
        assert unknown.status_code == 404 and "`always`, `seldom`" in unknown.json()["error"]["message"]
        wait_for(lambda: [one["model"] for one in deployment.replicas] == ["always"], 120)
        assert deployment.chat(model="seldom", max_tokens=3).status_code == 200


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["engine", "server", "freeze"])
def test_a_replica_that_breaks_is_back_by_itself(tmp_path: Path, how: str) -> None:
    with deployed(tmp_path, "tgi-demo", "--replicas", "2", "--threads", "1", "--memory", "1GiB") as deployment:
        first = {one["replica"]: one for one in deployment.replicas}
        victim = next(iter(first.values()))
        server, *others = descendants(victim["pid"])
        if how == "freeze":
            for pid in (server, *others):
                os.kill(pid, signal.SIGSTOP)
        else:
            os.kill(next(filter(is_engine, others)) if how == "engine" else server, signal.SIGKILL)
        for _ in range(10):
            assert deployment.chat(max_tokens=3).status_code == 200
        wait_for(lambda: victim["replica"] not in {one["replica"] for one in deployment.replicas}, 90)
        wait_for(lambda: len(deployment.replicas) == 2, 120)
        assert not any(alive(pid) for pid in (server, *others))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_in_the_background(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    def tgi(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            children.python("tgi", "deploy", *words),
            env=variables(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )

    port = str(free_ports(1)[0])
    failed = tgi("tgi-demo", "--detach", "--port", port, "--tokenizer-config-path", "/no/such")
    assert failed.returncode == 1 and "error: " in failed.stderr and "/no/such" in failed.stderr
    started = tgi("tgi-demo", "--detach", "--port", port)
    assert started.returncode == 0, started.stderr
    try:
        assert "tgi-demo" in started.stdout and "tgi deploy down" in started.stdout
        again = tgi("tgi-demo", "--detach", "--port", str(free_ports(1)[0]))
        assert again.returncode == 1 and "runs already" in again.stderr
        assert httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
        assert port in tgi("status").stdout
        answers, threads = streams(f"http://127.0.0.1:{port}", 3, 400)
        for answer in answers:
            assert answer.begun.wait(60)
    finally:
        ended = tgi("down")
    for thread in threads:
        thread.join()
    assert all(answer.whole for answer in answers), "open answers end first"
    assert ended.returncode == 0 and "has ended" in ended.stdout
    assert "No deployment runs" in tgi("status").stdout
    assert tgi("down").returncode == 1
