"""Every command line of docs/command-line.md does what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import HAS_DEMO
from tests.e2e.launched import REAL, ROOT, Launched, environment
from tests.fake_hub import FakeHub, Repo
from tgi.commands import cli

PAGE = (ROOT / "docs/command-line.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
MODELS = re.compile(r"tgi (pull|list$|show|rm|serve)")
"""Lines that `test_models` runs."""
LINES = [line for language, text in BLOCKS if language == "shell" for line in text.splitlines()]
TYPED = [
    (line[2:], answer)
    for language, text in BLOCKS
    if not language
    for line, _, answer in [text.partition("\n")]
    if line.startswith("$ ")
]

pytestmark = pytest.mark.skipif(not HAS_DEMO, reason="the demo model is not there")


def shell(line: str, home: Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    tgi = f'tgi() {{ {sys.executable} -m tgi "$@"; }}\n'
    return subprocess.run(
        ["bash", "-c", tgi + line],
        cwd=ROOT,
        env=environment(home, **variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_models(tiny_model: Path, tmp_path: Path) -> None:
    """The block about models, one line after the other, with a hub on loopback; what is served is stopped."""
    (block,) = [text for _, text in BLOCKS if text.startswith("tgi pull")]
    with FakeHub() as hub:
        files = {file.name: file.read_bytes() for file in tiny_model.iterdir()}
        hub.repos["HuggingFaceTB/SmolLM2-135M-Instruct"] = Repo(files)
        for line in block.splitlines():
            if line.startswith("tgi serve"):
                words = [word for word in line.split()[2:] if word not in ("--port", "8090")]
                with Launched(REAL, words, tmp_path, {"HF_ENDPOINT": hub.url}) as served:
                    served.connected()
                    assert "smollm2-135m is HuggingFaceTB/SmolLM2-135M-Instruct" in served.log
                continue
            ended = shell(line, tmp_path, HF_ENDPOINT=hub.url)
            assert ended.returncode == 0, f"{line}: {ended.stderr}"
            assert "SmolLM2-135M-Instruct" in ended.stdout


def test_settings_in_a_file(tmp_path: Path) -> None:
    (text,) = [text for language, text in BLOCKS if language == "yaml"]
    (tmp_path / "server.yaml").write_text(text)
    (line,) = [line for line in LINES if "--config" in line]
    words = [word for word in line.split()[2:] if word not in ("--port", "8091")]
    with Launched(REAL, words, tmp_path, {"PORT": "1"}) as served:
        served.connected()
        assert [one["id"] for one in httpx.get(f"{served.url}/v1/models").json()["data"]] == ["demo", "small"]


@pytest.mark.parametrize("line", [line for line in LINES if not MODELS.match(line)])
def test_lines(line: str, server: Launched, tmp_path: Path) -> None:
    """Chats without a question get one from a pipe; the model of the hub is the one that a server has."""
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/tgi-servers").symlink_to(server.home / ".cache/tgi-servers")
    line = line.replace("127.0.0.1:8080", f"127.0.0.1:{server.port}")
    line = line.replace("HuggingFaceTB/SmolLM2-135M-Instruct", "tgi-demo")
    line += "; complete -p tgi" if line.startswith("eval") else ""
    ended = shell(line, tmp_path, "Hello" if line.startswith("tgi chat") and '"' not in line else "")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()


@pytest.mark.parametrize(("line", "answer"), TYPED)
def test_what_is_answered(line: str, answer: str, tmp_path: Path) -> None:
    ended = shell(line, tmp_path)
    assert (ended.stdout + ended.stderr).startswith(answer)


def test_commands_of_the_chat_are_these() -> None:
    from tgi.commands.chat.slash import COMMANDS

    assert set(re.findall(r"`/(\w+)", PAGE)) == set(COMMANDS)


def test_flags_that_are_named_exist() -> None:
    from tgi.settings.parse import options

    known = {option.long for option in options()} | {
        "--help",
        "--json",
        "--system",
        "--set",
        "--load",
        "--ctx-size",
        "--known",
    }
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE)) <= known


def test_commands_that_are_named_exist() -> None:
    names = {"serve", "plan", "pull", "quantize", "download-weights", *cli.OTHERS}
    assert set(re.findall(r"\btgi ([a-z][a-z-]+)", PAGE)) <= names
