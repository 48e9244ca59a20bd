"""The engine as a process: READY, failures by phase, and no orphan whatever kills the parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.models.checkpoints import make_checkpoint
from tgi.errors import GenerationError, StartupError
from tgi.messages import GenerateRequest, Sampling
from tgi.serving.engine_client import EngineClient
from tgi.settings.config import EngineConfig


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"), "llama")


def start(config: EngineConfig, address: str) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-m", "tgi.engine.main", "--socket", address], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(config)).encode())
    process.stdin.close()
    return process


async def test_serves_and_stops_on_sigterm(checkpoint, tmp_path):
    client = EngineClient(f"ipc://{tmp_path}/engine")
    await client.start()
    process = start(EngineConfig(str(checkpoint), kv_cache_bytes=1 << 20, threads=1), client._address)
    try:
        info = await client.wait_ready(60)
        assert info.model_type == "llama"
        request = GenerateRequest(1, [5, 6, 7], Sampling(max_new_tokens=5), (0,))
        tokens = [token async for events in client.generate(request) for event in events for token in event.tokens]
        assert len(tokens) == 5
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        await client.close()


async def test_a_bad_model_is_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    client = EngineClient(f"ipc://{tmp_path}/engine")
    await client.start()
    process = start(EngineConfig(str(tmp_path), threads=1), client._address)
    try:
        with pytest.raises(StartupError, match="Unsupported model type nonsense"):
            await client.wait_ready(60)
        assert process.wait(10) == 1
    finally:
        process.kill()
        await client.close()


async def test_open_requests_fail_when_the_engine_is_killed(checkpoint, tmp_path):
    client = EngineClient(f"ipc://{tmp_path}/engine")
    await client.start()
    process = start(EngineConfig(str(checkpoint), kv_cache_bytes=1 << 20, threads=1), client._address)
    try:
        await client.wait_ready(60)
        request = GenerateRequest(1, [5, 6, 7], Sampling(max_new_tokens=500), (0,))
        with pytest.raises(GenerationError, match="killed"):
            async for _ in client.generate(request):
                if process.poll() is None:
                    process.kill()
                    process.wait()
                    client.engine_lost("killed")
    finally:
        process.kill()
        await client.close()


def alive(pid: int) -> bool:
    """Running; a zombie that nobody reaps is not."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_no_orphan_when_the_parent_is_killed(checkpoint, tmp_path):
    config = json.dumps(asdict(EngineConfig(str(checkpoint), kv_cache_bytes=1 << 20, threads=1)))
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                f"""
                import os, subprocess, sys, time
                child = subprocess.Popen(
                    [sys.executable, "-m", "tgi.engine.main", "--socket", "ipc://{tmp_path}/orphan",
                     "--parent", str(os.getpid())],
                    stdin=subprocess.PIPE,
                )
                child.stdin.write({config!r}.encode())
                child.stdin.close()
                print(child.pid, flush=True)
                time.sleep(60)
                """
            ),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(100):
        if not alive(child):
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the engine outlived its parent")


def run_engine(body: str) -> subprocess.CompletedProcess[bytes]:
    """The engine's `main` with a function in place of loading and serving."""
    script = f"""
import os, signal, sys, time
from tgi.engine import main

class Socket:
    def __init__(self, address): pass
    def close(self): os.kill(os.getpid(), signal.SIGTERM)

def serve(config, socket):
{textwrap.indent(textwrap.dedent(body), "    ")}

main.Socket, main._serve = Socket, serve
sys.argv[1:] = ["--socket", "ipc://unused"]
sys.exit(main.main())
"""
    config = json.dumps(asdict(EngineConfig("unused"))).encode()
    return subprocess.run([sys.executable, "-c", script], input=config, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "body",
    {
        "once": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)",
        "twice": "[os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)]",
        "at every handler": """
            while True:
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(30)
                except BaseException:
                    pass
            """,
        "in native code": """
            import threading
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
            import hashlib
            hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)  # minutes in one call
            """,
    }.values(),
)
def test_sigterm_ends_the_process_at_once_and_without_a_word(body: str):
    """Whatever runs, and however impatient the launcher is."""
    result = run_engine(body)
    assert (result.returncode, result.stderr) == (0, b"")
