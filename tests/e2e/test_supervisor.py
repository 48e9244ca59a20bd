"""From start to end of the launcher, with a scripted engine: order of the log, signals, deaths, failures."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.conftest import Launch
from tests.e2e.launched import ROOT, Launched, Stream

SLOW = json.dumps({"delay_s": 0.05})
GENERATE = {"inputs": "Hello", "parameters": {"max_new_tokens": 20}}


def in_order(server: Launched, *wanted: str) -> None:
    messages = iter(server.messages)
    for text in wanted:
        assert any(text in message for message in messages), f"{text!r} missing or out of order in\n{server.log}"


def ended_clean(server: Launched, pids: list[int]) -> None:
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert server.left_over() == []


def test_the_log_from_start_to_end(launch: Launch) -> None:
    server = launch().connected()
    pids = [server.engine.pid]
    assert server.post(**GENERATE).json()["generated_text"]
    (directory,) = server.left_over()
    assert stat.S_IMODE((server.home / directory).stat().st_mode) == 0o700
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    in_order(
        server,
        "Args { hostname: '127.0.0.1'",
        "Using attention paged - Prefix caching true",
        "Starting check and download process for",
        "Files are already present on the host. Skipping download.",
        "Successfully downloaded weights for",
        "Starting shard",
        "Shard ready in",
        "Memory plan:",
        "Starting Webserver",
        "Warming up model",
        "Setting max batch total tokens to 4096",
        "Using backend V3",
        "Maximum input tokens defaulted to 2047",
        "Maximum total tokens defaulted to 2048",
        "Serving revision",
        "Connected",
        "Success",
        "Terminating webserver",
        "signal received, starting graceful shutdown",
        "Waiting for webserver to gracefully shutdown",
        "webserver terminated",
        "Shutting down shards",
    )
    unformatted = [line for line in server.lines if not re.match(r"^\d{4}-\d\d-\d\dT|scripted engine", line)]
    assert unformatted == [], "libraries are silent"
    assert not [line for line in server.lines if re.search(r"Z +(WARN|ERROR) ", line)]
    ended_clean(server, pids)


def test_connected_means_connected(launch: Launch) -> None:
    server = launch()
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url + "/health")
    server.connected()
    assert httpx.get(server.url + "/health").status_code == 200


def test_json_log(launch: Launch) -> None:
    server = launch("--json-output").connected()
    server.send(signal.SIGINT)
    assert server.wait() == 0
    lines = [json.loads(line) for line in server.lines if not line.startswith("scripted")]
    connected = next(line for line in lines if line.get("message") == "Connected")
    assert connected["target"] == "text_generation_router"
    assert any(line.get("fields", {}).get("message") == "Starting shard" for line in lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_running_requests_finish_and_new_ones_get_503(launch: Launch, number: signal.Signals) -> None:
    server = launch(SCRIPT=SLOW).connected()
    pids = [server.engine.pid]
    stream = Stream(server, **GENERATE)
    server.send(number)
    server.wait_for("Waiting for webserver")
    refused = server.post(**GENERATE)
    assert refused.status_code == 503
    events = stream.join()
    assert stream.error is None
    assert len(events) == 20
    assert events[-1]["generated_text"]
    assert server.wait() == 0
    ended_clean(server, pids)


def test_what_does_not_finish_in_time_gets_its_error_event(launch: Launch) -> None:
    server = launch("--graceful-termination-timeout", "1", SCRIPT=json.dumps({"delay_s": 0.5})).connected()
    stream = Stream(server, **GENERATE)
    server.send(signal.SIGTERM)
    events = stream.join()
    assert events[-1]["error_type"] == "generation"
    assert "shutting down" in events[-1]["error"]
    assert server.wait() == 0


def test_a_second_signal_aborts(launch: Launch) -> None:
    server = launch(SCRIPT=json.dumps({"delay_s": 1.0})).connected()
    pids = [server.engine.pid]
    stream = Stream(server, **GENERATE)
    server.send(signal.SIGTERM)
    server.wait_for("Waiting for webserver")
    began = time.monotonic()
    server.send(signal.SIGTERM)
    assert stream.join()[-1]["error_type"] == "generation"
    assert server.wait() == 0
    assert time.monotonic() - began < 10  # 20 tokens would take 20 seconds
    ended_clean(server, pids)


def test_a_killed_engine_ends_every_request_and_the_launcher(launch: Launch) -> None:
    server = launch(SCRIPT=SLOW).connected()
    pids = [server.engine.pid]
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": 1000}}
    streams = [Stream(server, **body) for _ in range(3)]
    server.engine.kill()
    killed = time.monotonic()
    for stream in streams:
        events = stream.join()
        assert events[-1]["error_type"] == "generation"
        assert events[-1]["error"].endswith(": the engine process was killed (SIGKILL)"), "advice is for the log"
        assert stream.times[-1] - killed < 2
    health = httpx.get(server.url + "/health")
    assert (health.status_code, health.json()["error_type"]) == (503, "healthcheck")
    assert server.wait(10) == 1
    in_order(server, "probably because memory ran out", "Shard 0 crashed")
    assert server.lines[-1].startswith('Error: ShardFailed("the engine process was killed, probably because')
    ended_clean(server, pids)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ({"fail": "the weights do not fit"}, 'Error: ShardCannotStart("the weights do not fit")'),
        ({"exit": 3}, 'Error: ShardCannotStart("the engine process ended with status 3")'),
        ({"signal": int(signal.SIGILL)}, "this CPU lacks one that an installed library was built for (SIGILL)"),
        ({"signal": int(signal.SIGBUS)}, "/dev/shm is full"),
    ],
)
def test_an_engine_that_cannot_start(launch: Launch, script: dict[str, object], says: str) -> None:
    server = launch(SCRIPT=json.dumps(script))
    assert server.wait() == 1
    assert says in server.lines[-1]
    assert server.log.count(re.sub(r'^Error: \w+\("|"\)$', "", says)) == 1, "why is said once"
    in_order(server, "Starting shard", "Shard 0 failed to start")
    assert "Traceback" not in server.log
    assert server.left_over() == []


def test_a_signal_while_loading(launch: Launch) -> None:
    server = launch(SCRIPT='{"never_ready": true}')
    server.wait_for("scripted engine")
    pids = [server.engine.pid]
    server.send(signal.SIGINT)
    assert server.wait() == 0
    ended_clean(server, pids)


def test_the_engine_does_not_outlive_a_killed_launcher(launch: Launch) -> None:
    server = launch().connected()
    assert "libtorch" not in Path(f"/proc/{server.pid}/maps").read_text(), "the HTTP process must not load torch"
    engine = server.engine
    server.send(signal.SIGKILL)
    server.wait()
    engine.wait(10)


def test_port_in_use(launch: Launch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = launch("--port", str(port))
        assert server.wait() == 1
    assert server.lines[-1].startswith('Error: WebserverCannotStart("127.0.0.1:')
    assert "in use by another program" in server.lines[-1]
    assert "Starting shard" not in server.log


def test_what_tracing_lacks_is_said_before_loading(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("")  # hides an installed one
    server = launch("--otlp-endpoint", "http://127.0.0.1:1", PYTHONPATH=f"{tmp_path}:{ROOT}/src:{ROOT}")
    assert server.wait() == 1
    assert server.lines[-1].startswith('Error: ArgumentValidation("`otlp_endpoint` needs OpenTelemetry: pip install')
    assert "Starting shard" not in server.log


def test_tokenizer_that_cannot_be_read(launch: Launch, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in tiny_model.iterdir():
        (model / path.name).write_bytes(path.read_bytes() if path.name != "tokenizer.json" else b"{")
    server = launch("--model-id", str(model))
    assert server.wait() == 1
    assert "tokenizer.json" in server.lines[-1]
    assert "Traceback" not in server.log


def test_no_secret_in_the_log_nor_in_the_engines_environment(launch: Launch) -> None:
    server = launch("--api-key", "hunter22", HF_TOKEN="hf_hunter33").connected()
    environment = server.engine.environ()
    server.send(signal.SIGTERM)
    server.wait()
    assert "hunter" not in server.log
    assert "hunter" not in str(environment)


def test_warnings_before_the_start(launch: Launch) -> None:
    server = launch("--hostname", "0.0.0.0", "--cuda-graphs", "1", ATTENTION="paged").connected()
    assert "--cuda-graphs has no effect" in server.log
    assert "ATTENTION has no effect" in server.log
    assert "without --api-key" in server.log
