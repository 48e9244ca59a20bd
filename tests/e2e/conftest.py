"""Servers for tests: a real one shared by all that only ask, and fresh scripted ones for those that end it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.launched import REAL, SCRIPTED, Launched
from tests.models.checkpoints import make_checkpoint
from tgi.hub.prepare import demo_directory

HAS_DEMO = (demo_directory() / "model.safetensors").exists()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama checkpoint that starts in a moment."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny-llama"), "llama", max_position_embeddings=2048)


@pytest.fixture(scope="session")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """`tgi serve` with the demo model (or a tiny one of the same context), ready; ask it, do not end it."""
    model = [] if HAS_DEMO else ["--model-id", str(tiny_model)]
    arguments = [*model, "--kv-cache-memory", "64MiB", "--threads", "1"]
    with Launched(REAL, arguments, tmp_path_factory.mktemp("home")) as launched:
        yield launched.connected()


@pytest.fixture(scope="session")
def cramped(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """The random model in float32 with a cache for fewer tokens than its context: requests push each other out."""
    arguments = ["--model-id", str(tiny_model), "--kv-cache-memory", "1MiB", "--max-concurrent-requests", "160"]
    with Launched(REAL, [*arguments, "--threads", "1"], tmp_path_factory.mktemp("home")) as launched:
        yield launched.connected()


Launch = Callable[..., Launched]


@pytest.fixture
def launch(tiny_model: Path, tmp_path: Path) -> Iterator[Launch]:
    """`launch(*arguments, script="...", program=SCRIPTED, **variables)`: a launcher of this test's own."""
    with ExitStack() as stack:

        def start(*arguments: str, program: tuple[str, ...] = SCRIPTED, **variables: str) -> Launched:
            model = [] if "--model-id" in arguments else ["--model-id", str(tiny_model)]
            return stack.enter_context(Launched(program, [*model, *arguments], tmp_path, variables))

        yield start
