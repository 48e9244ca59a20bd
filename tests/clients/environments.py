"""Environments with other people's client libraries, at pinned versions, made once and kept in a cache.

Owns what is installed where. Nothing is installed into the environment of the tests themselves, and
nothing here needs torch. Called by `conftest` and, to fill the cache beforehand, as a command.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

INSTALL_TIMEOUT_S = 600
OWN_PACKAGE = Path(__file__).resolve().parent.parent.parent / "clients" / "python"


class CannotInstall(Exception):
    """The package registry did not give us the packages; the message says why."""


@dataclass(frozen=True)
class Environment:
    """Packages that are installed together. `node`: with npm in place of pip."""

    name: str
    packages: tuple[str, ...]
    node: bool = False


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment("own", (str(OWN_PACKAGE),)),
        Environment("text-generation", ("text-generation==0.7.0",)),
        Environment("hub-0.36", ("huggingface_hub==0.36.2", "aiohttp==3.14.5")),
        Environment("hub-2", ("huggingface_hub==2.4.0",)),
        Environment("openai-2", ("openai==2.54.0",)),
        Environment("openai-3", ("openai==3.52.0",)),
        Environment("anthropic", ("anthropic==2.14.0",)),
        Environment("langchain-openai", ("langchain-openai==1.7.3",)),
        Environment("langchain-huggingface", ("langchain-huggingface==1.2.3",)),
        Environment("litellm", ("litellm[mcp]==1.106.2",)),
        Environment("instructor", ("instructor==1.17.0",)),
        Environment("pydantic-ai", ("pydantic-ai-slim[openai]==2.68.0",)),
        Environment("dspy", ("dspy==3.4.1",)),
        Environment("llama-index", ("llama-index-llms-openai-like==0.8.1",)),
        Environment("lm-eval", ("lm_eval[api]==0.4.13", "transformers==5.23.0")),
        Environment(
            "node",
            ("openai@6.49.0", "@huggingface/inference@4.13.30", "ai@6.0.326", "@ai-sdk/openai-compatible@2.0.87"),
            node=True,
        ),
    )
}


def cache_directory() -> Path:
    """$TGI_TEST_CACHE, else a directory in the user's cache."""
    return Path(os.environ.get("TGI_TEST_CACHE") or Path.home() / ".cache" / "tgi-test-clients")


def ensure(name: str) -> list[str]:
    """The command that runs a script in the environment, which is made if it is not there.

    Raises CannotInstall.
    """
    environment = ENVIRONMENTS[name]
    directory = cache_directory() / name
    done = directory / "installed.txt"
    wanted = "\n".join(map(_identity, environment.packages))
    with _alone(name):
        if not done.exists() or done.read_text() != wanted:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            (_install_node if environment.node else _install_python)(directory, environment.packages)
            done.write_text(wanted)
    return ["node"] if environment.node else [str(directory / "bin" / "python")]


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Two runs of the tests do not make one environment at the same time."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    with (cache_directory() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _identity(package: str) -> str:
    """The package as it is named; with its content where it is a directory of ours."""
    if not package.startswith("/"):
        return package
    digest = hashlib.sha256()
    for path in [*sorted(Path(package).glob("text_generation/**/*.py")), Path(package) / "pyproject.toml"]:
        digest.update(path.read_bytes())
    return f"{package} {digest.hexdigest()}"


def _install_python(directory: Path, packages: tuple[str, ...]) -> None:
    _run([sys.executable, "-m", "venv", str(directory)])
    _run([str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages])


def _install_node(directory: Path, packages: tuple[str, ...]) -> None:
    if shutil.which("npm") is None:
        raise CannotInstall("there is no npm")
    _run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(directory), *packages])


def _run(command: list[str]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"`{' '.join(command)}` took more than {INSTALL_TIMEOUT_S} s") from None
    if result.returncode:
        reason = (result.stderr.strip() or "no reason given").splitlines()[-1]
        raise CannotInstall(f"`{' '.join(command)}`: {reason}")


if __name__ == "__main__":
    for one in sys.argv[1:] or ENVIRONMENTS:
        print(one, *ensure(one), flush=True)
