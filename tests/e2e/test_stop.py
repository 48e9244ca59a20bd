"""Stopping at any moment: soon, with the right status, without a traceback and with nothing left behind."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from tests.e2e.conftest import Launch
from tests.e2e.launched import REAL, Launched, Stream, environment

GENERATE = {"inputs": "Hello", "parameters": {"max_new_tokens": 500}}
SOON_S = 5.0
"""Well above the second it takes, and well below the ten or more that waiting for anything would."""


def stopped_soon(server: Launched, began: float) -> int:
    status = server.wait(SOON_S * 4)
    assert time.monotonic() - began < SOON_S, server.log
    assert "Traceback" not in server.log
    assert "Exception ignored" not in server.log
    assert server.left_over() == []
    return status


@pytest.mark.parametrize("frozen", [False, True])
def test_the_end_of_the_grace_is_the_end(launch: Launch, frozen: bool) -> None:
    server = launch("--graceful-termination-timeout", "1", SCRIPT='{"delay_s": 0.1}').connected()
    engine, stream = server.engine, Stream(server, **GENERATE)
    if frozen:
        engine.suspend()
    server.send(signal.SIGTERM)
    server.wait_for("Ending requests")
    began = time.monotonic()
    assert stream.join()[-1]["error_type"] == "generation"
    assert stopped_soon(server, began) == 0
    assert not engine.is_running()


@pytest.mark.slow
def test_who_does_not_read_holds_nobody_up(launch: Launch) -> None:
    server = launch("-g", "1", SCRIPT=json.dumps({"ids": [5] * 2000})).connected()
    body = json.dumps({"inputs": "x", "parameters": {"max_new_tokens": 2000, "top_n_tokens": 5, "details": True}})
    with socket.create_connection(("127.0.0.1", server.port)) as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = ("POST /generate_stream HTTP/1.1", "host: x", "content-type: application/json")
        reader.sendall("\r\n".join([*head, f"content-length: {len(body)}", "", body]).encode())
        time.sleep(1)
        server.send(signal.SIGTERM)
        server.wait_for("Waiting for webserver")
        time.sleep(1.2)
        assert stopped_soon(server, time.monotonic()) == 0


@pytest.mark.parametrize(
    "variables", [{"SCRIPT": '{"never_ready": true}'}, {"SLOW_LOAD": "30"}], ids=["engine", "tokenizer"]
)
def test_many_signals_while_loading(launch: Launch, variables: dict[str, str]) -> None:
    server = launch(**variables)
    server.wait_for("scripted engine")
    began = time.monotonic()
    for _ in range(10):
        server.send(signal.SIGINT)
        time.sleep(0.03)
        if not psutil.pid_exists(server.pid):
            break
    assert stopped_soon(server, began) == 0


def test_many_signals_while_serving(launch: Launch) -> None:
    server = launch(SCRIPT='{"delay_s": 1.0}').connected()
    stream = Stream(server, **GENERATE)
    began = time.monotonic()
    for _ in range(20):
        server.send(signal.SIGINT)
        time.sleep(0.02)
    assert stream.join()[-1]["error_type"] == "generation"
    assert stopped_soon(server, began) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_while_converting_weights(launch: Launch, tiny_model: Path, tmp_path: Path, number: signal.Signals) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({"weight": torch.zeros(2)}, model / "pytorch_model.bin")
    server = launch("--model-id", str(model), program=REAL)
    server.wait_for("converting them")
    began = time.monotonic()
    children = server.children()
    for _ in range(3):
        server.send(number)
    assert stopped_soon(server, began) == 128 + number
    assert server.lines[-1] == "stopped"
    assert not [child for child in children if child.is_running()]


def test_in_the_middle_of_the_models_steps(launch: Launch) -> None:
    server = launch("--kv-cache-memory", "16MiB", "--threads", "1", program=REAL).connected()
    streams = [Stream(server, inputs="Hello", parameters={"max_new_tokens": 2000}) for _ in range(2)]
    server.send(signal.SIGTERM)
    server.wait_for("Waiting for webserver")
    began = time.monotonic()
    server.send(signal.SIGTERM)
    for stream in streams:  # a small model may have ended by itself
        last = stream.join()[-1]
        assert last.get("error_type") == "generation" or last["generated_text"]
    assert stopped_soon(server, began) == 0
    assert "ERROR text_generation_server" not in server.log


@pytest.mark.slow
def test_a_service_manager_signals_the_engine_too(launch: Launch) -> None:
    server = launch().connected()
    engine = server.engine
    server.send(signal.SIGTERM)
    engine.terminate()
    assert stopped_soon(server, time.monotonic()) == 0
    assert "ERROR" not in server.log


@pytest.mark.slow
def test_hanging_up_does_not_end_what_was_started_to_survive_it(launch: Launch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; children inherit it
    try:
        server = launch().connected()
    finally:
        signal.signal(signal.SIGHUP, before)
    server.send(signal.SIGHUP)
    assert server.post(inputs="Hello", parameters={"max_new_tokens": 2}).status_code == 200


INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *more):
        if name == target:
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where tests run in the background
target = sys.argv.pop(1)
sys.meta_path.insert(0, Finder())
from tgi.commands.entry import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    "module",
    ["tgi.commands.cli", "msgspec", "tgi.settings.parse", "tgi.hub.prepare", "tgi.launcher.supervisor", "uvloop"],
)
def test_a_signal_while_modules_are_imported_is_quiet(module: str, tmp_path: Path) -> None:
    """Python's own answer to it is a traceback."""
    command = [sys.executable, "-c", INTERRUPTED, module, "serve", "--port", "0"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert ended.returncode in (-signal.SIGINT, 130), ended.stdout + ended.stderr
    assert ended.stderr in ("", "stopped\n")
