"""Real servers behind a real router: what is killed, frozen and replaced under load, and what clients see of it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.e2e.launched import REAL, Launched
from tests.replicas.background import Background
from tests.replicas.recorder import Recorder
from tests.replicas.streams import CHAT, Answer, streams

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROUTE = ("-m", "tgi", "route")


class Fleet:
    """Servers that are named in a file, and a router that follows it."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._stack = ExitStack()
        self.servers: list[Launched] = []

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def add(self) -> Launched:
        home = self._place / f"server{len(list(self._place.iterdir()))}"
        home.mkdir()
        flags = ("tgi-demo", "--threads", "1", "--kv-cache-memory", "64MiB")
        server = self._stack.enter_context(Launched(REAL, flags, home, {"LOG_LEVEL": "debug"}))
        self.servers.append(server.connected())
        self.write()
        return server

    def write(self) -> None:
        new = self._place / "new"
        new.write_text("\n".join(server.url for server in self.servers))
        new.rename(self._place / "replicas")

    def route(self) -> Launched:
        home = self._place / f"router{len(list(self._place.iterdir()))}"
        home.mkdir()
        flags = ("--discover", str(self._place / "replicas"), "--start-timeout", "30")
        router = self._stack.enter_context(Launched(ROUTE, flags, home, {"LOG_LEVEL": "debug"}))
        router.wait_for("Routing on")
        self.wait_up(router, len(self.servers))
        return router

    def wait_up(self, router: Launched, count: int) -> None:
        wait_for(lambda: up(router) == count)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as fleet:
        yield fleet


def up(router: Launched) -> int:
    text = httpx.get(f"{router.url}/metrics").text
    return sum(line.endswith(" 1.0") for line in text.splitlines() if line.startswith("tgi_router_replica_up{"))


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["engine", "tree"])
def test_killed_under_32_streams(fleet: Fleet, how: str) -> None:
    first, _ = fleet.add(), fleet.add()
    router = fleet.route()
    answers, threads = streams(router.url, 32, 800)
    for answer in answers:
        answer.begun.wait(60)
    killed = time.monotonic()
    if how == "engine":
        first.engine.kill()
    else:
        for process in first.children():
            process.kill()
        first.send(signal.SIGKILL)
    for thread in threads:
        thread.join()
    there = [answer for answer in answers if answer.replica.endswith(f":{first.port}") and answer.ended > killed]
    others = [answer for answer in answers if answer not in there]
    assert len(there) > 4 and len(others) > 4
    assert all(answer.whole for answer in others)
    assert not [answer.data[-200:] for answer in there if not answer.ended_with_an_error_event]
    assert max(answer.ended for answer in there) - killed < 2.0
    again = [httpx.post(f"{router.url}/v1/chat/completions", json=CHAT | {"max_tokens": 3}) for _ in range(5)]
    assert all(answer.status_code == 200 for answer in again)


def test_a_frozen_server_is_out_until_it_goes_on(fleet: Fleet) -> None:
    first, _ = fleet.add(), fleet.add()
    router = fleet.route()
    processes = [*first.children()]
    began = time.monotonic()
    first.send(signal.SIGSTOP)
    for process in processes:
        process.suspend()
    fleet.wait_up(router, 1)
    assert time.monotonic() - began < 5.0
    assert httpx.post(f"{router.url}/v1/chat/completions", json=CHAT | {"max_tokens": 3}).status_code == 200
    for process in processes:
        process.resume()
    first.send(signal.SIGCONT)
    fleet.wait_up(router, 2)


def test_a_killed_router_closes_and_the_next_one_serves(fleet: Fleet) -> None:
    fleet.add()
    router = fleet.route()
    (answer,), (thread,) = streams(router.url, 1, 1500)
    answer.begun.wait(60)
    router.send(signal.SIGKILL)
    thread.join(10)
    assert answer.error is not None and not answer.whole, "a closed connection, which does not look whole"
    next_one = fleet.route()
    assert httpx.post(f"{next_one.url}/v1/chat/completions", json=CHAT | {"max_tokens": 3}).status_code == 200


class Load(Background):
    """Streams one after another, some at once."""

    def __init__(self, url: str, at_once: int) -> None:
        super().__init__(at_once)
        self._url = url
        self.answers: list[Answer] = []

    def work(self, number: int) -> None:
        while not self.ending.is_set():
            number += 100
            answer = Answer(self._url, number, 60)
            answer.run()
            self.answers.append(answer)

    def go_on(self, count: int = 12) -> None:
        before = len(self.answers)
        wait_for(lambda: len(self.answers) >= before + count)


def test_scaling_and_a_rolling_upgrade_lose_nothing(fleet: Fleet) -> None:
    fleet.add()
    fleet.add()
    router = fleet.route()
    with Load(router.url, 6) as load:
        load.go_on()
        for fresh in (False, True, True, True):  # 2 -> 1 -> 2, then each of the two is replaced
            if fresh:
                fleet.add()
                fleet.wait_up(router, len(fleet.servers))
                load.go_on()
            if len(fleet.servers) > 1 and (not fresh or len(fleet.servers) > 2):
                old = fleet.servers.pop(0)
                fleet.write()
                old.send(signal.SIGTERM)
                assert old.wait(60) == 0
                load.go_on()
    broken = [(answer.status, answer.error, answer.data[-200:]) for answer in load.answers if not answer.whole]
    assert not broken and len(load.answers) > 40


def test_the_only_server_is_replaced_and_requests_wait(fleet: Fleet) -> None:
    old = fleet.add()
    router = fleet.route()
    with Load(router.url, 3) as load:
        load.go_on(6)
        fleet.servers.clear()
        fleet.write()
        old.send(signal.SIGTERM)
        assert old.wait(60) == 0
        fleet.add()
        load.go_on(6)
    assert all(answer.whole for answer in load.answers)


def test_one_id_and_one_trace_in_all_logs(fleet: Fleet) -> None:
    server = fleet.add()
    router = fleet.route()
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"x-request-id": "my-request-7", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    answer = httpx.post(f"{router.url}/v1/chat/completions", json=CHAT | {"max_tokens": 3}, headers=headers)
    assert answer.status_code == 200 and answer.headers["x-request-id"] == "my-request-7"
    of_router = router.wait_for("my-request-7", 5)
    wait_for(lambda: sum("my-request-7" in line for line in server.lines) >= 2, 5)
    named = [line for line in server.lines if "my-request-7" in line]
    assert any("text_generation_server" in line for line in named), "the engine's"
    assert any("Success" in line for line in named)
    assert all(trace in line for line in (of_router, *named))
    unnamed = httpx.post(f"{router.url}/generate", json={"inputs": "x", "parameters": {"max_new_tokens": 2}})
    given = unnamed.headers["x-request-id"]
    router.wait_for(given, 5)
    wait_for(lambda: sum(given in line for line in server.lines) >= 2, 5)


def with_openai(url: str) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key="-")
    list(client.chat.completions.create(model="tgi-demo", messages=CHAT["messages"], max_tokens=8, stream=True, seed=1))


def with_openai_whole(url: str) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key="-")
    client.completions.create(model="tgi-demo", prompt="Hello, ", max_tokens=8, seed=1, logprobs=2)


def with_huggingface_hub(url: str) -> None:
    from huggingface_hub import InferenceClient

    client = InferenceClient(base_url=url)
    list(client.chat.completions.create(messages=CHAT["messages"], stream=True, max_tokens=8, seed=1))


def with_text_generation(url: str) -> None:
    from text_generation import Client

    list(Client(url).generate_stream("Hello, ", max_new_tokens=8))


def with_curl(url: str) -> None:
    body = json.dumps({"inputs": "Hello, ", "parameters": {"max_new_tokens": 8, "details": True}})
    command = ["curl", "-sN", f"{url}/generate_stream", "-H", "content-type: application/json", "-d", body]
    subprocess.run(command, check=True, capture_output=True)


def with_an_error(url: str) -> None:
    httpx.post(f"{url}/v1/chat/completions", json={"messages": "wrong"})


CLIENTS = (with_openai, with_openai_whole, with_huggingface_hub, with_text_generation, with_curl, with_an_error)


def test_clients_get_the_same_bytes_through_the_router(fleet: Fleet) -> None:
    server = fleet.add()
    router = fleet.route()
    for client in CLIENTS:
        client(server.url)  # so that both find the same in the cache
        taken = []
        for url in (server.url, router.url):
            with Recorder(url) as recorder:
                client(recorder.url)
                taken.append(recorder.taken())
        direct, routed = taken
        assert direct[0].startswith((b"200", b"4")) and len(direct[2]) > 20
        assert routed == direct, client.__name__
