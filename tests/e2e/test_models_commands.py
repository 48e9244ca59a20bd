"""`tgi pull`, `list`, `show` and `rm` with a hub on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.launched import environment
from tests.fake_hub import FakeHub, Repo
from tgi.hub import cached
from tgi.launcher.registry import registered

ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


def tgi(home: Path, *words: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tgi", *words],
        cwd=home,
        env=environment(home, **variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[FakeHub]:
    files = {file.name: file.read_bytes() for file in tiny_model.iterdir()}
    with FakeHub() as hub:
        hub.repos[ID] = Repo(files)
        yield hub


def test_a_model_comes_and_goes(hub: FakeHub, tmp_path: Path) -> None:
    place = {"HF_HOME": str(tmp_path / "hf")}
    pulled = tgi(tmp_path, "pull", "smollm2:135m", HF_ENDPOINT=hub.url, **place)
    assert (pulled.returncode, pulled.stderr) == (0, "")
    assert f"smollm2-135m is {ID} (licence: apache-2.0)" in pulled.stdout
    listed = tgi(tmp_path, "list", **place)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [line for line in listed.stdout.splitlines() if line.startswith(ID) and line.endswith("yes")]
    assert f"in {tmp_path}/hf/hub" in listed.stdout
    (one,) = json.loads(tgi(tmp_path, "list", "--json", **place).stdout)
    assert (one["id"], one["problem"], list(one["revisions"])) == (ID, None, ["main"])
    assert one["bytes"] == sum(len(data) for name, data in hub.repos[ID].files.items() if name != "README.md")
    shown = tgi(tmp_path, "show", "smollm2-135m", **place).stdout
    assert "apache-2.0" in shown and "revision main" in shown and "can be served" in shown
    asked = tgi(tmp_path, "rm", "smollm2-135m", **place)
    assert asked.returncode == 2 and "say so with -y" in asked.stderr
    removed = tgi(tmp_path, "rm", "-y", "smollm2-135m", **place)
    assert (removed.returncode, removed.stderr) == (0, "") and removed.stdout.startswith(f"removed {ID}: ")
    assert list((tmp_path / "hf/hub").glob("models--*")) == []
    again = tgi(tmp_path, "rm", "-y", ID, **place)
    assert again.returncode == 1 and f"{ID} is not in the cache" in again.stderr


def test_one_that_cannot_be_served(hub: FakeHub, tmp_path: Path) -> None:
    place = {"HF_HOME": str(tmp_path / "hf")}
    assert tgi(tmp_path, "pull", ID, HF_ENDPOINT=hub.url, **place).returncode == 0
    snapshot = next((tmp_path / "hf/hub").glob("models--*/snapshots/*"))
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").write_text('{"model_type": "llama", "hidden_size": "x"}')
    listed = tgi(tmp_path, "list", **place)
    assert listed.returncode == 0 and "  no: " in listed.stdout and "config.json lacks" in listed.stdout


def test_a_model_that_is_served_stays(tmp_path: Path) -> None:
    (tmp_path / "hub/models--org--name/blobs").mkdir(parents=True)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with registered("org/name", sock, key=False, variables={"HOME": str(tmp_path)}):
            refused = tgi(tmp_path, "rm", "-y", "org/name", HF_HOME=str(tmp_path))
    assert refused.returncode == 1 and "is served by process" in refused.stderr
    assert (tmp_path / "hub/models--org--name").exists()


def test_what_was_converted_belongs_to_its_model(tmp_path: Path) -> None:
    blob = tmp_path / "hub/models--org--name/blobs/a"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(100))
    (blob.parent / "b.unfinished").write_bytes(bytes(7))
    made = tmp_path / "hub/tgi-gguf/0123"
    made.mkdir(parents=True)
    (made / "m.gguf").symlink_to(blob)
    (made / "tokenizer.json").write_bytes(bytes(10))
    other = tmp_path / "hub/tgi-gguf/4567"
    other.mkdir()
    (other / "m.gguf").symlink_to(tmp_path / "elsewhere")
    variables = {"HF_HOME": str(tmp_path), "HOME": str(tmp_path)}
    (model,) = cached.models(variables)
    assert (model.id, model.bytes, model.unfinished_bytes, model.made) == ("org/name", 110, 7, [made])
    cached.remove(model)
    assert not made.exists() and other.exists() and cached.models(variables) == []


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["list", "--known"], 0, "Qwen/Qwen3-8B"),
        (["list"], 0, "CAN BE SERVED"),
        (["show", "qwen3:8b"], 0, "no: tgi pull Qwen/Qwen3-8B"),
        (["show", "qwen3"], 1, "qwen3 comes in several sizes"),
        (["show", "qwen3-9b"], 1, "did you mean"),
        (["show"], 2, "a model is needed"),
        (["rm", "a", "b"], 2, "unexpected argument 'b' found"),
        (["list", "--knwon"], 2, "a similar argument exists: '--known'"),
        (["pull", "--help"], 0, "Usage: tgi pull MODEL_ID"),
    ],
)
def test_what_they_say(words: list[str], status: int, says: str, tmp_path: Path) -> None:
    ended = tgi(tmp_path, *words)
    assert ended.returncode == status and says in ended.stdout + ended.stderr
