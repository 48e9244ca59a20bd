"""The real engine behind the real launcher."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.e2e.conftest import HAS_DEMO, Launch
from tests.e2e.launched import LAUNCHER, REAL, Launched, Stream


def test_generate(server: Launched) -> None:
    answer = server.post(inputs="Hello, ", parameters={"max_new_tokens": 5, "details": True}).json()
    assert answer["details"]["generated_tokens"] <= 5
    assert answer["generated_text"]


@pytest.mark.skipif(not HAS_DEMO, reason="random weights do not end by themselves: the demo model is not there")
def test_a_hundred_and_twenty_eight_threads(server: Launched) -> None:
    parameters = {"max_new_tokens": 1000, "stop": ["\n\n"], "temperature": 0.7, "top_k": 50, "top_p": 0.9}

    def ask(number: int) -> str:
        body = {"inputs": f"Paragraph number {number} of a long text.", "parameters": parameters}
        response = httpx.post(f"{server.url}/", json=body, timeout=110)
        assert response.status_code == 200, response.text
        return response.json()[0]["generated_text"]

    with ThreadPoolExecutor(128) as threads:
        texts = list(threads.map(ask, range(128)))
    assert all(text.startswith(f"Paragraph number {number}") for number, text in enumerate(texts))


def test_memory_plan_is_in_the_log_and_in_info(server: Launched) -> None:
    assert "Memory plan:" in server.messages
    assert any("KV cache" in message and " MiB" in message for message in server.messages)
    assert httpx.get(f"{server.url}/info").json()["max_total_tokens"] == 2048


def test_the_engine_says_what_scripts_wait_for(server: Launched) -> None:
    messages = iter(server.messages)
    for text in (
        "Starting shard",
        "Using prefix caching = True",
        "Using Attention = paged",
        "Using prefill chunking = True",
        "Server started at unix:///",
        "Shard ready in",
    ):
        assert any(text in message for message in messages), f"{text!r} missing or out of order in\n{server.log}"


def test_ctrl_c_leaves_nothing(launch: Launch) -> None:
    server = launch("--kv-cache-memory", "16MiB", program=REAL).connected()
    pids = [server.pid, *(child.pid for child in server.children())]
    assert len(pids) >= 2
    assert server.post(inputs="Hello", parameters={"max_new_tokens": 3}).status_code == 200
    server.send(signal.SIGINT)
    assert server.wait() == 0
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert server.left_over() == []
    assert "Traceback" not in server.log
    assert not [line for line in server.lines if " WARN " in line or " ERROR " in line]


def test_kill_dash_nine_of_the_engine(launch: Launch) -> None:
    server = launch("--kv-cache-memory", "16MiB", program=LAUNCHER).connected()
    stream = Stream(server, inputs="Hello", parameters={"max_new_tokens": 1900, "ignore_eos": True})  # a second of work
    engine = server.engine
    engine.kill()
    killed = time.monotonic()
    events = stream.join()
    assert "error" in events[-1]
    assert stream.times[-1] - killed < 2
    assert httpx.get(f"{server.url}/health").status_code == 503
    assert server.wait(10) == 1


def test_limits_that_do_not_fit_are_said(launch: Launch) -> None:
    server = launch("--memory", "1MiB", program=LAUNCHER)
    assert server.wait() == 1
    assert server.lines[-1].startswith('Error: ShardCannotStart("the weights do not fit')
    assert "Traceback" not in server.log
