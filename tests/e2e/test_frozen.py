"""An engine process that is stopped (SIGSTOP) and goes on later."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from tests.e2e.conftest import Launch
from tests.e2e.launched import Launched, Stream
from tgi.heartbeat import OVERDUE_S

LATEST_S = OVERDUE_S + 5.0
BODY = {"inputs": "Hello", "parameters": {"max_new_tokens": 4}}


def health(server: Launched) -> int:
    return httpx.get(server.url + "/health", timeout=5).status_code


@pytest.mark.slow
def test_busy_and_idle(launch: Launch) -> None:
    server = launch(SCRIPT='{"delay_s": 0.05}').connected()
    answers: list[httpx.Response] = []
    long = {"inputs": "Hello", "parameters": {"max_new_tokens": 1000}}
    plain = threading.Thread(target=lambda: answers.append(server.post(**long)))
    stream = Stream(server, **long)
    plain.start()
    server.engine.suspend()
    began = time.monotonic()
    error = stream.join(LATEST_S)[-1]
    plain.join(LATEST_S)
    assert time.monotonic() - began < LATEST_S
    assert "sign of life" in error["error"] and error["error_type"] == "generation"
    assert answers[0].status_code == 424 and "sign of life" in answers[0].text
    assert health(server) == 503
    for path in ("/generate", "/generate_stream"):
        began = time.monotonic()
        refused = server.post(path, **BODY)
        assert refused.status_code == 503 and '"healthcheck"' in refused.text
        assert time.monotonic() - began < 2
    assert server.post("/tokenize", inputs="Hello").status_code == 200

    server.engine.resume()
    server.wait_for("The engine is back")
    assert server.post(**BODY).status_code == 200
    assert health(server) == 200

    server.engine.suspend()
    deadline = time.monotonic() + LATEST_S
    while health(server) == 200:
        assert time.monotonic() < deadline, "an idle engine is missed too"
        time.sleep(0.2)
    server.engine.resume()
