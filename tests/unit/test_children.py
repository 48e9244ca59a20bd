"""A directory that a command is started in, such as a model's, runs no code: not in a child, not in a command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tgi
from tgi import children
from tgi.commands import verify
from tgi.commands.doctor import command as doctor
from tgi.errors import StartupError
from tgi.hub import prepare
from tgi.hub.convert_tokenizer import ensure_fast_tokenizer
from tgi.launcher.engine_process import EngineProcess
from tgi.settings.config import EngineConfig
from tgi.settings.resolve import ModelFiles

SOURCES = Path(tgi.__file__).parent
OTHER_WAYS = re.compile(
    r"sys\.executable|multiprocessing|ProcessPoolExecutor|os\.(exec|spawn|posix_spawn)|import executable"
)
THEIRS = (
    *("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "numpy", "msgspec", "zmq", "rich"),
    *("uvicorn", "uvloop", "starlette", "pydantic", "jinja2", "httptools", "prometheus_client", "xxhash", "matplotlib"),
    *("packaging", "regex", "tqdm", "sentencepiece", "google", "opentelemetry", "yaml", "sitecustomize"),
)
COMMANDS = {
    "tgi": "main",
    "text-generation-launcher": "launcher_main",
    "text-generation-server": "server_main",
    "text-generation-benchmark": "benchmark_main",
}
"""The installed commands, and what each runs."""


@dataclass(frozen=True)
class Planted:
    """A model that needs both conversions, with a file for every module that anybody imports."""

    model: Path
    ran: Path
    """Where a planted file that runs leaves its name."""
    stubs: Path
    """torch and transformers that end a child at once, for PYTHONPATH: safe paths leave that alone."""


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    planted = Planted(*(tmp_path_factory.mktemp(name) for name in ("model", "ran", "stubs")))
    for name in {name for name in sys.stdlib_module_names if name not in sys.builtin_module_names} | set(THEIRS):
        (planted.model / f"{name}.py").write_text(f"open({str(planted.ran)!r} + '/{name}', 'w').close()\n")
    (planted.model / "config.json").write_text('{"model_type": "llama"}')
    (planted.model / "tokenizer.model").write_bytes(b"none")
    (planted.model / "pytorch_model.bin").write_bytes(b"none")
    for name in ("torch", "transformers"):
        (planted.stubs / f"{name}.py").write_text("raise SystemExit('a stub')\n")
    return planted


@pytest.fixture
def planted(everywhere: Planted, monkeypatch: pytest.MonkeyPatch) -> Iterator[Planted]:
    """The model is the working directory; none of its files may run."""
    monkeypatch.setenv("PYTHONPATH", f"{everywhere.stubs}:{SOURCES.parent}")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.chdir(everywhere.model)
    yield everywhere
    assert [path.name for path in everywhere.ran.iterdir()] == []


def test_planted_files_do_run_without_care(planted: Planted) -> None:
    subprocess.run([sys.executable, "-m", "json.tool"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    ran = list(planted.ran.iterdir())
    assert ran
    for path in ran:
        path.unlink()


def convert_weights(model: Path) -> None:
    prepare.convert(ModelFiles(str(model), "model"))


def start_engine(model: Path) -> None:
    async def run() -> None:
        process = await EngineProcess.start(EngineConfig(str(model)), f"ipc://{model}/socket", dict(os.environ))
        await asyncio.wait_for(process.wait(), 60)

    asyncio.run(run())


CHILDREN: dict[str, Callable[[Path], object]] = {
    "convert": convert_weights,
    "convert_tokenizer": ensure_fast_tokenizer,
    "doctor_torch": lambda model: doctor.ask("tgi.commands.doctor.torch_facts", doctor.Torch),
    "doctor_native": lambda model: children_of("tgi.commands.doctor.native_facts"),
    "verify": lambda model: verify.run(EngineConfig(str(model)), 0, lambda line: None),
    "engine": start_engine,
}


def test_ctrl_c_reaches_no_child() -> None:
    """It goes to the group of the terminal: a child would print where it was, beside our word."""
    command = [*children.python("x")[:-2], "-c", "import os; print(os.getpgrp() == os.getpid())"]
    with children.started(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.read() == "True\n"


def test_a_signal_while_a_child_starts_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[subprocess.Popen[bytes]] = []

    class Slow(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            begun.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Slow)
    command = [*children.python("x")[:-2], "-c", "import time; time.sleep(60)"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), children.started(command):
            raise ValueError("the block is not to begin")
        assert begun[0].returncode == -signal.SIGKILL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def children_of(module: str) -> None:
    """Import what the module imports, and no more: it would measure the machine."""
    command = [*children.python(module)[:-2], "-c", f"import {module}"]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("child", CHILDREN)
def test_no_child_imports_from_the_working_directory(planted: Planted, child: str) -> None:
    with contextlib.suppress(StartupError):  # the stubs let nothing succeed
        CHILDREN[child](planted.model)


def test_no_command_imports_from_the_working_directory(planted: Planted, tmp_path: Path) -> None:
    runs: list[list[str]] = []
    for command, function in COMMANDS.items():
        script = tmp_path / command  # as an installer writes it
        script.write_text(f"import sys\nfrom tgi.commands.cli import {function}\nsys.exit({function}())\n")
        runs.append([sys.executable, str(script), "--version"])
    run_all(runs)
    run_all([[sys.executable, str(tmp_path / "tgi"), *words.split()] for words in ON_MODELS])


def test_nor_does_the_package_run_as_a_module(planted: Planted) -> None:
    """Except for what Python itself imports before it looks for the module after -m, which nobody can prevent."""
    code = "import runpy, contextlib, warnings, sys; print(*sys.modules)"
    early = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    for name in early.split():
        (planted.model / f"{name}.py").unlink(missing_ok=True)
    runs = ["-m tgi download-weights .", "-X dev -mtgi --version", "-m tgi.commands.cli"]
    run_all([[sys.executable, *words.split()] for words in runs])


ON_MODELS = (
    "download-weights .",
    "plan --model-id .",
    "verify-determinism --model-id .",
    "serve --model-id .",
    "bench",
)


def run_all(commands: list[list[str]]) -> None:
    for process in [subprocess.Popen(it, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for it in commands]:
        _, errors = process.communicate(timeout=60)
        assert b"Traceback" not in errors, errors.decode()


def test_python_is_started_in_one_way_only() -> None:
    for path in SOURCES.rglob("*.py"):
        if path.name != "children.py":
            found = OTHER_WAYS.search(path.read_text())
            assert found is None, f"{path}: {found and found[0]}: use tgi.children"


def test_a_child_does_not_outlive_the_block_that_fails() -> None:
    began = time.monotonic()
    with pytest.raises(KeyError), children.started(["sleep", "30"]) as child:
        raise KeyError
    assert child.poll() is not None
    assert time.monotonic() - began < 10
