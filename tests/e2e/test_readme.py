"""Every block of the README does what it says.

Blocks that talk to the server run as they stand, but for the port. Blocks that install are compared
with what the Makefile and the Dockerfile do, which `test_install` runs for real.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import HAS_DEMO
from tests.e2e.launched import ROOT, Launched, environment
from tgi.commands import cli

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHELL = [text for language, text in BLOCKS if language == "shell"]
CURL = [text for text in SHELL if text.startswith("curl")]
COMMANDS = [line for text in SHELL if text not in CURL for line in text.splitlines()]
CLIENTS = [text for language, text in BLOCKS if language == "python" and "127.0.0.1:8080" in text]
OFFLINE = [text for language, text in BLOCKS if language == "python" and "127.0.0.1:8080" not in text]

has_demo = pytest.mark.skipif(not HAS_DEMO, reason="the demo model is not there")


def execute(command: list[str], home: Path, timeout: float = 110.0) -> str:
    variables = environment(home, PYTHONPATH=f"{ROOT}/src:{ROOT}/clients/python")
    variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_nothing_is_left_out() -> None:
    assert {language for language, _ in BLOCKS} == {"shell", "python"}
    assert len(CURL) == 2
    assert len(CLIENTS) == 4
    assert len(OFFLINE) == 1
    assert README.count("```") == 2 * len(BLOCKS)


@pytest.mark.parametrize("block", CURL, ids=range(len(CURL)))
def test_curl(block: str, server: Launched, tmp_path: Path) -> None:
    answer = execute(
        ["bash", "-c", block.replace("curl", "curl -sS --fail-with-body").replace("8080", str(server.port))], tmp_path
    )
    if '"stream": true' in block:
        events = [line for line in answer.splitlines() if line.startswith("data:")]
        assert events[-1] == "data: [DONE]"
        assert len(events) > 2
    else:
        assert "generated_text" in answer


@pytest.mark.parametrize("block", CLIENTS, ids=range(len(CLIENTS)))
def test_clients(block: str, server: Launched, tmp_path: Path) -> None:
    assert execute([sys.executable, "-c", block.replace("8080", str(server.port))], tmp_path).strip()


@has_demo
@pytest.mark.parametrize("block", OFFLINE, ids=range(len(OFFLINE)))
def test_offline(block: str, tmp_path: Path) -> None:
    assert execute([sys.executable, "-c", block], tmp_path).strip()


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if line.startswith("make"):
        assert execute(["bash", "-c", line.replace("make", "make --dry-run", 1)], tmp_path)
    elif line.startswith("pip install"):
        installer = (ROOT / "tools/install.py").read_text()
        version, label = re.findall(r"torch==([\d.]+)(\+cpu)", line)[0]
        assert f'TORCH_VERSION = "{version}"' in installer
        assert re.findall(r"--find-links (\S+)", line)[0] in installer
        assert f"torch=={version}{label}" in (ROOT / "Dockerfile").read_text()
    elif line.startswith("docker"):
        assert (ROOT / "Dockerfile").exists()
    elif line == "text-generation-launcher --help":
        assert cli.launcher_main(line.split()[1:]) == 0
        assert "--model-id" in capsys.readouterr().out
    else:
        assert line.startswith("tgi plan")
        if HAS_DEMO:
            assert "requests of full length" in execute(
                ["bash", "-c", line.replace("tgi", f"{sys.executable} -m tgi")], tmp_path
            )


def test_commands_that_are_promised_exist() -> None:
    scripts = (ROOT / "pyproject.toml").read_text()
    for command in re.findall(r"^\| `([\w-]+)(?: \w+)?` \|", README, re.MULTILINE):
        assert f"{command} = " in scripts


def test_flags_that_are_named_exist() -> None:
    from tgi.settings.parse import options

    known = {option.long for option in options()} | {"--help", "--find-links", "--from", "--torch-backend"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) <= known
