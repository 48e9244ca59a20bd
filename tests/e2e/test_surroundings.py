"""Where the launcher runs: other locales, names that are not ASCII, long temporary directories, any free port."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Launch
from tests.e2e.launched import environment

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NARROW = ASCII | {"PYTHONIOENCODING": "ascii"}


def test_an_ascii_locale_and_a_long_temporary_directory(launch: Launch, tiny_model: Path, tmp_path: Path) -> None:
    """The temporary directory has no room for the path of a socket, of 107 bytes."""
    model = tmp_path / "größe 模型"
    model.symlink_to(tiny_model)
    temporary = tmp_path / ("t" * 100)
    temporary.mkdir()
    server = launch("--model-id", str(model), "--port", "0", TMPDIR=str(temporary), **ASCII)
    address = re.findall(r"(http://\S+)/docs", server.wait_for("Listening on"))[0]
    server.connected()
    assert httpx.get(f"{address}/info").json()["model_id"] == str(model)
    assert (
        httpx.post(f"{address}/generate", json={"inputs": "é", "parameters": {"max_new_tokens": 2}}).status_code == 200
    )
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    assert str(model) in server.log
    assert not re.search(r"Traceback|Logging error|Error|\\udc", server.log)


@pytest.mark.parametrize("variables", [ASCII, NARROW], ids=["ascii", "narrow"])
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["download-weights", "{model}"], 0),
        (["plan", "--model-id", "{model}"], 0),
        (["inspect", "{model}"], 0),
        (["serve", "--model-id", "/nirgendwö"], 1),
        (["download-weights", "nämé"], 1),
        (["serve", "--model-id", "b\udcff"], 2),
    ],
)
def test_other_commands(
    words: list[str], status: int, variables: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "größe"
    shutil.copytree(tiny_model, model)
    command = [sys.executable, "-m", "tgi", *(word.format(model=model) for word in words)]
    variables = environment(tmp_path, HF_HUB_OFFLINE="1", **variables)
    result = subprocess.run([os.fsencode(word) for word in command], env=variables, capture_output=True, check=False)
    said = (result.stdout + result.stderr).decode()
    assert result.returncode == status, said
    assert "Traceback" not in said and "Logging error" not in said
