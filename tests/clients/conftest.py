"""Servers for client libraries, and how a library is run: its own environment, a script, JSON back.

All tests here are slow: environments are downloaded on first use.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.environments import CannotInstall, cache_directory, ensure
from tests.e2e.launched import REAL, Launched
from tests.models.checkpoints import make_checkpoint
from tgi.hub.prepare import demo_directory

SCRIPTS = Path(__file__).parent / "scripts"
KEY = "a-secret"
LONG_CONTEXT = 65_536
HAS_DEMO = (demo_directory() / "model.safetensors").exists()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(900))


RunScript = Callable[..., Any]


@pytest.fixture(scope="session")
def run_script() -> RunScript:
    """`run_script(environment, script, *arguments)`: what the script printed, read as JSON.

    Skips the test when the environment cannot be made.
    """

    def run(environment: str, script: str, *arguments: str) -> Any:
        try:
            command = ensure(environment)
        except CannotInstall as reason:
            pytest.skip(f"cannot install {environment}: {reason}")
        variables = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        variables["NODE_PATH"] = str(cache_directory() / environment / "node_modules")
        result = subprocess.run(
            [*command, str(SCRIPTS / script), *arguments], capture_output=True, text=True, timeout=300, env=variables
        )
        assert result.returncode == 0, f"{script} failed:\n{result.stdout}\n{result.stderr}"
        return json.loads(result.stdout.strip().splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama in float32 with room for answers that take minutes."""
    return make_checkpoint(tmp_path_factory.mktemp("clients"), "llama", max_position_embeddings=LONG_CONTEXT)


@pytest.fixture(scope="session")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """A server with the demo model where it is there, else with a tiny random one."""
    model = [] if HAS_DEMO else ["--model-id", str(checkpoint), "--max-total-tokens", "2048"]
    arguments = [*model, "--kv-cache-memory", "64MiB", "--threads", "1"]
    with Launched(REAL, arguments, tmp_path_factory.mktemp("home")) as launched:
        yield launched.connected()


@pytest.fixture(scope="session")
def model_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """A server with the model that `$TGI_TEST_MODEL` names; without the variable, the server above."""
    model = os.environ.get("TGI_TEST_MODEL")
    if not model:
        yield request.getfixturevalue("server")
        return
    arguments = ["--model-id", model, "--kv-cache-memory", "256MiB", "--threads", "1"]
    with Launched(REAL, arguments, tmp_path_factory.mktemp("home")) as launched:
        yield launched.connected()


@pytest.fixture(scope="session")
def random_server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """A server with the random model: for comparing numbers with transformers."""
    arguments = ["--model-id", str(checkpoint), "--max-total-tokens", "2048", "--kv-cache-memory", "64MiB"]
    with Launched(REAL, [*arguments, "--threads", "1"], tmp_path_factory.mktemp("home")) as launched:
        yield launched.connected()


@pytest.fixture(scope="session")
def guarded(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """A server with a key and a single permit, at which nobody waits."""
    arguments = ["--model-id", str(checkpoint), "--api-key", KEY, "--max-concurrent-requests", "1", "--max-queue", "0"]
    arguments += ["--kv-cache-memory", "64MiB", "--threads", "1"]
    with Launched(REAL, arguments, tmp_path_factory.mktemp("home")) as launched:
        yield launched.connected()


@pytest.fixture
def busy(guarded: Launched) -> Iterator[Launched]:
    """The guarded server while its only permit is taken."""
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": LONG_CONTEXT - 100, "ignore_eos": True}}
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.stream("POST", f"{guarded.url}/generate_stream", json=body, headers=headers, timeout=60) as response:
        lines = response.iter_lines()  # kept: the stream is closed when it is collected
        assert "token" in next(lines)
        yield guarded
