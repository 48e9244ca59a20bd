"""The parts of a deployment that need no Ray: the directory, the scaling, and a replica's server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest

from tests.replicas.stub import until
from tgi import children
from tgi.commands.deploy import foreground
from tgi.errors import StartupError
from tgi.ray import cluster as cluster_module
from tgi.ray import engine as engine_module
from tgi.ray import ports as ports_module
from tgi.ray.cluster import Cluster
from tgi.ray.directory import SETTLED_S, VALID_S, Directory
from tgi.ray.engine import UNHEALTHY, Engine, drain_s, needs_fetch
from tgi.ray.flags import DeployFlags
from tgi.ray.ports import free_ports
from tgi.ray.router import RoutingActor, settings_of
from tgi.ray.scaling import Policy
from tgi.ray.served import Served
from tgi.ray.server import Server, descendants
from tgi.ray.state import State, found, held
from tgi.replicas.discovery import DiscoveryError
from tgi.replicas.upstream import UpstreamError
from tgi.settings.config import read_environment

DEMO = Served("demo", ("--model-id=tgi-demo", "--threads=1", "--served-model-name=demo"), "tgi-demo")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def entry(url: str, model: str = "demo") -> dict[str, Any]:
    return {"url": url, "model": model}


def test_the_directory_knows_who_spoke_lately() -> None:
    clock = Clock()
    directory = Directory(clock)
    directory.announce(entry("b"))
    assert directory.known() == (None, {}), "others may not have spoken yet"
    clock.now = SETTLED_S
    directory.expect({"demo": "tgi-demo"})
    directory.announce(entry("a"))
    assert directory.known() == ([entry("a"), entry("b")], {"demo": "tgi-demo"})
    clock.now = VALID_S + 1
    assert directory.known()[0] == [entry("a")]
    directory.leave("a")
    directory.leave("unknown")
    assert directory.known()[0] == []


def wanted(requests: float = 0, **figures: dict[str, float]) -> float:
    context = SimpleNamespace(aggregated_metrics=figures, total_num_requests=requests)
    return Policy(target_queue=4, target_cache=0.8)(context)[0]


def test_scaling_by_queue_and_cache() -> None:
    assert wanted() == 0, "nothing runs: down to the fewest"
    assert wanted(requests=1) == 1, "a request waits for the first replica"
    assert wanted(running={"a": 1.0}, waiting={"a": 0.0}, cache_usage={"a": 0.1}) == 1
    assert wanted(running={"a": 9.0}, waiting={"a": 8.0}, cache_usage={"a": 0.1}) == 2
    assert wanted(waiting={"a": 0.0, "b": 0.0}, cache_usage={"a": 0.9, "b": 0.9}) == 3
    assert wanted(waiting={"a": 4.0, "b": 0.0}, cache_usage={"a": 0.8, "b": 0.8}) == 2
    assert wanted(waiting={"a": 400.0}, cache_usage={"a": 1.0}) == 100


def test_drains_and_downloads() -> None:
    assert drain_s(DEMO) == 90
    assert drain_s(Served("x", ("--graceful-termination-timeout=5",), "x")) == 5
    assert needs_fetch(Served("x", (), "org/name")) and not needs_fetch(DEMO)
    assert not needs_fetch(Served("x", (), "./org/name")) and not needs_fetch(Served("x", (), "tests/replicas"))


def test_one_replica_of_a_node_fetches_and_the_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = tmp_path / "events"
    code = (
        "import sys, time; f = open(sys.argv[1], 'a', 1); print('begin', file=f); time.sleep(0.3); print('end', file=f)"
    )
    monkeypatch.setattr(children, "python", lambda *words: [sys.executable, "-c", code, str(events)])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    hub = Served("x", (), "org/name", "main")
    threads = [threading.Thread(target=engine_module.fetch_once, args=(hub, {})) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert events.read_text().split() == ["begin", "end"] * 3
    engine_module.fetch_once(DEMO, {})
    assert len(events.read_text().split()) == 6, "nothing is fetched of a model that is here"


async def test_a_server_that_cannot_start_says_why() -> None:
    server = await Server.start(["--model-id=/no/such"], read_environment(), "127.0.0.1", ())
    with pytest.raises(StartupError, match="no directory /no/such"):
        await server.ready()
    await server.kill()


class Handle:
    """A handle of Ray's, of a directory in this process."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def __getattr__(self, name: str) -> Any:
        async def remote(*arguments: Any) -> Any:
            return getattr(self._directory, name)(*arguments)

        return SimpleNamespace(remote=remote)


async def make_engine(directory: Directory, served: Served = DEMO) -> Engine:
    engine = Engine.__new__(Engine)
    await engine.__init__(served, Handle(directory), {"host": "127.0.0.1", "node": "n", "replica": "r"})  # type: ignore[misc]
    return engine


async def test_a_replica_announces_itself_is_asked_and_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_ID", "/no/such")
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setattr(engine_module, "SAY_EVERY_S", 0.05)
    clock = Clock()
    directory = Directory(clock)
    clock.now = SETTLED_S
    engine = await make_engine(directory)
    await until(lambda: bool(directory.known()[0]))
    (said,) = directory.known()[0] or ()
    assert said["url"] == await engine.where() and said["model"] == "demo" and said["node"] == "n"
    await engine.check_health()
    assert engine.record_autoscaling_stats() == {"running": 0, "waiting": 0, "cache_usage": 0.0}
    processes = descendants(said["pid"])
    assert len(processes) >= 2
    await engine.stop()
    assert directory.known()[0] == []
    await until(lambda: not any(alive(one) for one in processes))


async def test_keys_are_not_left_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    engine = await make_engine(Directory(), msgspec.structs.replace(DEMO, keys=("secret",)))
    try:
        assert not [name for name in os.listdir(tmp_path) if name.startswith("tgi-replica-")]  # noqa: PTH208
        async with httpx.AsyncClient(base_url=await engine.where(), trust_env=False) as client:
            for headers, status in (({}, 401), ({"authorization": "Bearer secret"}, 200)):
                answer = await client.post("/tokenize", json={"inputs": "x"}, headers=headers)
                assert answer.status_code == status
    finally:
        await engine.stop()


async def test_a_frozen_server_is_ended_with_all_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgi.ray.server.PATIENCE_S", 0.3)
    engine = await make_engine(Directory())
    processes = descendants(engine._server.pid)
    for one in processes:
        os.kill(one, signal.SIGSTOP)
    for _ in range(UNHEALTHY):
        with pytest.raises(UpstreamError, match="silent"):
            await engine.check_health()
    await until(lambda: not any(alive(one) for one in processes))
    with pytest.raises(UpstreamError, match="ended"):
        await engine.check_health()
    await engine.stop()


async def test_a_server_ends_with_the_process_that_started_it() -> None:
    """As when Ray kills a replica's actor."""
    code = (
        "import asyncio\nfrom tests.ray.test_parts import DEMO, Server, read_environment\n"
        "async def main():\n"
        "    server = await Server.start(DEMO.words, read_environment(), '127.0.0.1', ())\n"
        "    await server.ready()\n    print('pid', server.pid, flush=True)\n    await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    async with asyncio.timeout(60):
        while not (line := await parent.stdout.readline()).startswith(b"pid "):
            assert line
    processes = descendants(int(line.split()[1]))
    parent.kill()
    await parent.wait()
    await until(lambda: not any(alive(one) for one in processes), 10)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_router_of_ray_follows_the_directory() -> None:
    clock = Clock()
    directory = Directory(clock)
    actor = RoutingActor.__new__(RoutingActor)
    settings = settings_of({"models": {"first": "a"}, "start-timeout": 1, "salt": "s"})
    await actor.__init__(settings, Handle(directory))  # type: ignore[misc]
    router = actor._router
    try:
        with pytest.raises(DiscoveryError, match="just started"):
            await actor._look()
        assert [one["id"] for one in router.models.entries] == ["first"]
        clock.now = SETTLED_S
        directory.expect({"demo": "tgi-demo"})
        directory.announce(entry("http://127.0.0.1:1"))
        assert await actor._look() == ["http://127.0.0.1:1"]
        assert [one["id"] for one in router.models.entries] == ["demo"]
        await until(lambda: len(router.replicas) == 1)
        await actor.check_health()
        actor._tasks[0].cancel()
        await asyncio.sleep(0)
        with pytest.raises((RuntimeError, asyncio.CancelledError)):
            await actor.check_health()
    finally:
        for task in actor._tasks:
            task.cancel()


def test_the_id_of_a_request_is_in_an_answer_once() -> None:
    from tgi.ray.router import _WithoutId

    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Request-ID", b"1"), (b"a", b"b")]})

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(_WithoutId(app)({"type": "http"}, None, send))  # type: ignore[arg-type]
    assert sent[0]["headers"] == [(b"a", b"b")]


def test_deployments_are_listed_for_as_long_as_they_live(tmp_path: Path) -> None:
    variables = {"XDG_RUNTIME_DIR": str(tmp_path)}
    state = State(1, "tgi", "http://x", 0.0, replicas=[{"model": "m"}])
    with held("tgi", variables) as file:
        file.write(state)
        assert found(variables) == [state]
        state.replicas = []
        file.write(state)
        assert found(variables) == [state], "a shorter one leaves nothing of the longer one"
        with pytest.raises(StartupError, match="runs already"), held("tgi", variables):
            pass
    assert found(variables) == []
    (tmp_path / "tgi-deployments" / "old.json").write_text("{}")
    assert found(variables) == []


def test_free_ports_are_free_and_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports) < lowest or lowest < 30_000, "no connection gets one of them"
    monkeypatch.setattr(ports_module, "FIRST", ports[0])
    monkeypatch.setattr(ports_module, "LAST", ports[0])
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", ports[0]))
        with pytest.raises(OSError, match="not 1 free ports"):
            free_ports(1)


def fake_ray(monkeypatch: pytest.MonkeyPatch, *, nodes: int, at: tuple[str, int] | None) -> None:
    """A cluster of so many nodes, whose Serve listens there; None: it has none."""
    client = None if at is None else SimpleNamespace(http_config=SimpleNamespace(host=at[0], port=at[1]))
    modules = {
        "ray": SimpleNamespace(nodes=lambda: [{"Alive": True}] * nodes),
        "ray.serve": SimpleNamespace(),
        "ray.serve.config": SimpleNamespace(HTTPOptions=None),
        "ray.serve.context": SimpleNamespace(_get_global_client=lambda **_: client),
    }
    modules["ray"].serve = modules["ray.serve"]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def test_what_a_cluster_does_not_allow_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = DeployFlags(ray_address="auto", port=9000)
    fake_ray(monkeypatch, nodes=1, at=("0.0.0.0", 8000))
    with pytest.raises(StartupError, match=r"listens on 0\.0\.0\.0, port 8000: give .*--port 8000"):
        cluster_module._serve(flags)
    fake_ray(monkeypatch, nodes=1, at=("127.0.0.1", 9000))
    assert not cluster_module._serve(flags), "it was there before"
    fake_ray(monkeypatch, nodes=2, at=None)
    with pytest.raises(StartupError, match="other nodes of the cluster, which has 2: give --hostname"):
        cluster_module._serve(flags)


def test_nodes_that_are_too_small_are_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0, "memory": 2e9}}, {"Alive": False, "Resources": {"CPU": 64.0}}]
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: nodes))
    cluster = Cluster(DeployFlags(), "", (), own=False)
    for cpus, memory, told in ((4, 1 << 30, False), (8, 1 << 30, True), (2, 4 << 30, True)):
        caplog.clear()
        cluster._warn_of_room(Served("large", (), "x", cpus=cpus, memory=memory))
        assert ("No node of the cluster has what a replica of `large` takes" in caplog.text) == told


def test_a_directory_that_has_just_started_says_nothing_of_replicas() -> None:
    state, written = State(1, "tgi", "http://x", 0.0, replicas=[{"replica": "a", "model": "m", "url": "u"}]), []
    file = SimpleNamespace(write=written.append)
    for told, kept in ((None, ["a"]), ([], [])):
        cluster = SimpleNamespace(replicas=lambda told=told: told, expect=lambda: None)
        foreground._look(cluster, state, file)  # type: ignore[arg-type]
        assert [one["replica"] for one in state.replicas] == kept
    assert written == [state]


def test_the_line_that_says_why() -> None:
    assert cluster_module._brief(RuntimeError("x\n[NOTICE] a\n[ALERT] no port\n[ALERT] exiting\n")) == "[ALERT] no port"
    assert cluster_module._brief(RuntimeError("Traceback ...\n  File\nValueError: y\n")) == "ValueError: y"
    assert cluster_module._brief(TimeoutError()) == "TimeoutError"


def test_a_model_that_failed_is_tried_again_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    trouble = [StartupError("no room")]

    def run(self: Cluster, application: Any, name: str, prefix: str | None) -> None:
        ran.append(name)
        if trouble:
            raise trouble.pop()

    fake = SimpleNamespace(delete=ran.append)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(serve=fake))
    monkeypatch.setitem(sys.modules, "tgi.ray.application", SimpleNamespace(bind_model=lambda *_: None))
    monkeypatch.setattr(Cluster, "_run", run)
    monkeypatch.setattr(Cluster, "expect", lambda *_: None)
    cluster = Cluster(DeployFlags(), "", (), own=True)
    with pytest.raises(StartupError):
        cluster.deploy([DEMO])
    cluster.deploy([DEMO])
    cluster.deploy([DEMO])
    assert ran == ["tgi-demo"] * 2, "once in vain, once well, and then it is there"
    assert not cluster.failed
