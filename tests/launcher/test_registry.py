"""The list of servers on this machine: private, and without those that are gone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tgi.launcher.registry import FOLDER, Running, places, registered, running


@pytest.fixture
def sock() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def test_a_server_is_listed_while_it_runs(tmp_path: Path, sock: socket.socket) -> None:
    variables = {"XDG_CACHE_HOME": str(tmp_path)}
    with sock, registered("org/a", sock, key=True, variables=variables):
        (one,) = running(variables)
        assert (one.pid, one.model, one.key) == (os.getpid(), "org/a", True)
        assert one.url == f"http://127.0.0.1:{sock.getsockname()[1]}"
        folder = tmp_path / FOLDER
        assert folder.stat().st_mode & 0o777 == 0o700
        assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]
    assert running(variables) == [] and list(folder.iterdir()) == []


def test_one_that_was_killed_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, signal, socket, sys; from tgi.launcher.registry import registered\n"
        "sock = socket.socket(); sock.bind(('127.0.0.1', 0))\n"
        f"with registered('m', sock, key=False, variables={{'XDG_CACHE_HOME': {str(tmp_path)!r}}}):\n"
        "    print('there', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert child.stdout == "there\n", child.stderr
    assert len(list((tmp_path / FOLDER).iterdir())) == 1
    assert running({"XDG_CACHE_HOME": str(tmp_path)}) == []
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_place_that_others_can_enter_is_not_used(tmp_path: Path, sock: socket.socket) -> None:
    """The next one is, and where there is none the server runs unlisted."""
    (tmp_path / "run" / FOLDER).mkdir(parents=True, mode=0o755)
    variables = {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "HOME": str(tmp_path)}
    with sock, registered("m", sock, key=False, variables=variables):
        assert len(running(variables)) == 1
        assert list((tmp_path / "run" / FOLDER).iterdir()) == []
        assert list((tmp_path / ".cache" / FOLDER).iterdir())
        with registered("m", sock, key=False, variables={"XDG_RUNTIME_DIR": str(tmp_path / "run")}):
            pass
        with registered("m", sock, key=False, variables={}):
            pass


def test_files_that_are_none_of_ours(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir(mode=0o700)
    (folder / "1.json").write_text("not JSON")
    (folder / "2.json").symlink_to("/etc/passwd")
    assert running({"XDG_CACHE_HOME": str(tmp_path)}) == []
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"XDG_RUNTIME_DIR": "/run/user/1", "HOME": "/home/a"}, ["/run/user/1", "/home/a/.cache"]),
        ({"XDG_CACHE_HOME": "/c", "HOME": "/home/a"}, ["/c"]),
        ({}, []),
    ],
)
def test_places(variables: dict[str, str], found: list[str]) -> None:
    assert places(variables) == [Path(place, FOLDER) for place in found]


def test_addresses_to_connect_to() -> None:
    assert Running(1, "m", "0.0.0.0", 80, 0.0).url == "http://127.0.0.1:80"
    assert Running(1, "m", "::", 80, 0.0).url == "http://[::1]:80"
