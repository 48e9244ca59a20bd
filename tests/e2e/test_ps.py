"""`tgi ps` and the status line, of a server that runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import Launch
from tests.e2e.launched import Stream, environment


def ps(home: Path, *words: str) -> str:
    command = [sys.executable, "-m", "tgi", "ps", *words]
    ended = subprocess.run(command, cwd=home, env=environment(home), capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_ps_and_status_line(launch: Launch, tmp_path: Path) -> None:
    assert ps(tmp_path).split() == ["PID", "MODEL", "ADDRESS", "UP", "FOR", "RUNNING", "QUEUED"]
    script = '{"ids": [5, 5, 5, 5, 5, 5, 5, 5, 5, 5], "delay_s": 0.1}'
    server = launch("--status-interval", "0.3", "--served-model-name", "name", SCRIPT=script)
    server.wait_for("scripted engine")
    assert json.loads(ps(tmp_path, "--json"))[0]["state"] in ("starting", "ready")
    server.connected()
    assert "tokens/s" not in server.log
    stream = Stream(server, inputs="x", parameters={"max_new_tokens": 10})
    (listed,) = json.loads(ps(tmp_path, "--json"))
    assert (listed["pid"], listed["url"], listed["model"]) == (server.pid, server.url, "name")
    assert (listed["state"], listed["queued"]) == ("ready", 0)
    stream.join()
    server.wait_for("tokens/s generated")
    assert f"{server.pid}  name" in ps(tmp_path)


def test_ps_says_what_it_does_not_know(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tgi", "ps", "--jsn"]
    ended = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2 and "a similar argument exists: '--json'" in ended.stderr
