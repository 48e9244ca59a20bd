"""`tgi completion`: what the shells themselves make of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.e2e.launched import environment
from tgi.commands import cli
from tgi.commands.completion import tree
from tgi.commands.completion.command import SHELLS
from tgi.hub.known import KNOWN
from tgi.settings.parse import options


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files bash, zsh and fish with the completions, as the command prints them."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        command = [sys.executable, "-m", "tgi", "completion", shell]
        printed = subprocess.run(command, env=environment(folder), capture_output=True, text=True, timeout=60)
        assert (printed.returncode, printed.stderr) == (0, "")
        (folder / shell).write_text(printed.stdout)
    return folder


BASH = """
source {script}
completed() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tgi; printf '%s\\n' "${{COMPREPLY[@]}}"; }}
completed {line}
"""


def in_bash(scripts: Path, line: str) -> set[str]:
    """Candidates for the last word of a line."""
    code = BASH.format(script=scripts / "bash", line=line)
    command = ["bash", "--norc", "-c", code]
    return set(subprocess.run(command, cwd=scripts, capture_output=True, text=True, check=True).stdout.split())


def in_fish(scripts: Path, line: str) -> set[str]:
    code = f"source {scripts / 'fish'}; complete -C '{line}'"
    command = ["fish", "--no-config", "-c", code]
    ended = subprocess.run(
        command, cwd=scripts, env=environment(scripts), capture_output=True, text=True, check=True, timeout=60
    )
    return {answer.partition("\t")[0] for answer in ended.stdout.splitlines()}


LINES = [
    ("tgi ser", {"serve"}, {"plan"}),
    ("tgi serve --quant", {"--quantize"}, {"--port"}),
    ("tgi serve --quantize int", {"int8", "int4"}, {"--quantize"}),
    ("tgi serve smollm2-1", {"smollm2-135m", "smollm2-1.7b"}, {"--port"}),
    ("tgi chat --sys", {"--system"}, {"--quantize"}),
    ("tgi rm --y", {"--yes"}, {"--json"}),
    ("tgi plan --js", {"--json", "--json-output"}, set()),
    ("tgi completion f", {"fish"}, {"bash"}),
    ("tgi bench --prom", {"--prompt-tokens"}, set()),
    ("text-generation-launcher --dtype b", {"bfloat16"}, {"float16"}),
    ("tgi serve --config zs", {"zsh"}, {"--port"}),
]


@needs("bash")
@pytest.mark.parametrize(("line", "has", "lacks"), LINES)
def test_bash(scripts: Path, line: str, has: set[str], lacks: set[str]) -> None:
    found = in_bash(scripts, line)
    assert has <= found and not lacks & found


@needs("bash")
def test_bash_after_a_space(scripts: Path) -> None:
    assert in_bash(scripts, "tgi ''") == {one.name for one in tree.commands()}
    assert in_bash(scripts, "tgi serve --port ''") == set()
    assert {"zsh", "fish", *KNOWN} <= in_bash(scripts, "tgi serve ''")


@needs("fish")
@pytest.mark.parametrize(("line", "has", "lacks"), LINES)
def test_fish(scripts: Path, line: str, has: set[str], lacks: set[str]) -> None:
    found = in_fish(scripts, line)
    assert has <= found and not lacks & found


@needs("tmux")
@needs("zsh")
def test_zsh(scripts: Path, tmp_path: Path) -> None:
    """In a terminal, since its completion runs nowhere else."""
    (tmp_path / ".zshrc").write_text(f"autoload -U compinit; compinit -D\nsource {scripts / 'zsh'}\nPS1='> '\n")
    tmux = ["tmux", "-L", f"tgi-{uuid.uuid4().hex[:8]}", "-f", "/dev/null"]

    def run(*words: str) -> str:
        return subprocess.run([*tmux, *words], capture_output=True, text=True, check=True, timeout=20).stdout

    def shows(*texts: str) -> None:
        deadline = time.monotonic() + 20
        while not all(text in (screen := run("capture-pane", "-p")) for text in texts):
            assert time.monotonic() < deadline, screen
            time.sleep(0.05)

    run(
        "new-session",
        "-d",
        "-x",
        "120",
        "-y",
        "40",
        f"env -i PATH=$PATH TERM=screen HOME={tmp_path} ZDOTDIR={tmp_path} zsh",
    )
    try:
        shows(">")
        for typed, completed in (
            ("tgi ser", "tgi serve"),
            ("tgi serve --quanti", "tgi serve --quantize"),
            ("tgi serve --dtype bfl", "tgi serve --dtype bfloat16"),
            ("tgi chat smollm3", "tgi chat smollm3-3b"),
            ("text-generation-launcher --max-best", "text-generation-launcher --max-best-of"),
        ):
            run("send-keys", "-l", "--", typed)
            run("send-keys", "Tab")
            shows(completed)
            run("send-keys", "C-u")
        run("send-keys", "-l", "--", "tgi serve --max-batch-")
        run("send-keys", "Tab", "Tab")
        shows("--max-batch-size", "Most sequences in one step")
    finally:
        subprocess.run([*tmux, "kill-server"], capture_output=True, check=False)


def test_every_command_and_flag_is_there() -> None:
    commands = {one.name: {flag.name for flag in one.flags} for one in tree.commands()}
    assert set(commands) == {"serve", "plan", "pull", "quantize", "download-weights", *cli.OTHERS}
    assert {option.long for option in options()} <= commands["serve"] & commands["verify-determinism"]
    assert {"--system", "--set", "--load", "--api-key", "--quantize"} <= commands["chat"]
    assert {"--json", "--help"} <= commands["ps"] and "--known" in commands["list"]
    assert {"--method", "--gguf"} <= commands["quantize"]


def test_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "fsh"]) == 2
    assert "a similar argument exists: 'fish'" in capsys.readouterr().err
    assert cli.main(["completion"]) == 2
