"""Installation for real, in fresh environments: the commands of the Dockerfile and of the Makefile."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.launched import ROOT, environment, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

DOCKERFILE = (ROOT / "Dockerfile").read_text()
BASE_IMAGE = 130e6
"""Bytes of python:3.12-slim, unpacked."""


def copy_project(target: Path) -> Path:
    """What a clone would hold: tracked files as they are now, and new ones that are not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def pip_variables(home: Path, **more: str) -> dict[str, str]:
    """pip must find packages as it does outside, so its own settings stay."""
    settings = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
    variables = environment(home, **settings, **more)
    del variables["PYTHONPATH"]
    return variables | {"HOME": os.environ.get("HOME", str(home))}


def wait_connected(process: subprocess.Popen[str]) -> list[str]:
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if "Connected" in line:
            return lines
    raise AssertionError("".join(lines))


def test_dockerfile(tmp_path: Path, tiny_model: Path) -> None:
    """What its steps do, but for Debian's packages and the place of the virtual environment."""
    project = copy_project(tmp_path / "clone")
    context, venv = tmp_path / "context", tmp_path / "venv"
    context.mkdir()
    for sources, target in re.findall(r"^COPY (?!--)(.+) (\S+)$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            into = context / source if target == "./" else context / target
            (shutil.copytree if (project / source).is_dir() else shutil.copy2)(project / source, into)
    # Without a network pip would try PyTorch's page again and again, for every package.
    variables = pip_variables(tmp_path, PIP_RETRIES="0")
    variables["PATH"] = f"{Path(sys.executable).parent}:{venv}/bin:{variables['PATH']}"
    variables |= dict(re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE, re.MULTILINE))
    commands = [command for command in re.findall(r"^RUN (.+)$", DOCKERFILE, re.MULTILINE) if "apt-get" not in command]
    assert len(commands) == 3
    for command in commands:
        command = command.replace("/opt/tgi", str(venv))
        subprocess.run(["sh", "-c", command], cwd=context, env=variables, check=True, timeout=1200)
    (packages,) = venv.glob("lib/python*/site-packages")
    installed = {path.name for path in packages.iterdir()}
    assert "torch" in installed and "pip" not in installed
    assert not any("nvidia" in name for name in installed)
    files = {path.stat().st_ino: path.stat().st_blocks * 512 for path in venv.rglob("*") if path.is_file()}
    assert sum(files.values()) + BASE_IMAGE < 1.2e9
    (command,) = re.findall(r'^ENTRYPOINT \["(text[^"]+)"\]$', DOCKERFILE, re.MULTILINE)
    settings = {"PORT": str(free_port()), "HOSTNAME": "127.0.0.1", "TGI_KV_CACHE_MEMORY": "16MiB"}
    process = subprocess.Popen(
        [f"{venv}/bin/{command}", "--model-id", str(tiny_model)],
        cwd=tmp_path,
        env=variables | settings,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_connected(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_make_serve(tmp_path: Path, tiny_model: Path) -> None:
    project = copy_project(tmp_path / "clone")
    variables = pip_variables(tmp_path)
    arguments = f"ARGS=--model-id {tiny_model} --port {free_port()} --kv-cache-memory 16MiB"
    for attempt in (1, 2):
        process = subprocess.Popen(
            ["make", "serve", f"PYTHON={sys.executable}", arguments],
            cwd=project,
            env=variables,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            lines = wait_connected(process)
            os.killpg(process.pid, signal.SIGINT)
            process.wait(30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert any("Installing" in line for line in lines) == (attempt == 1), "the second run installs nothing"
    example = [".venv/bin/python", "examples/translate.py", "--help"]
    subprocess.run(example, cwd=project, env=variables, check=True, stdout=subprocess.DEVNULL)
