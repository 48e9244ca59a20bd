"""Directories of one process: where they can be, and what becomes of those that a killed process leaves."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tgi.errors import StartupError
from tgi.launcher import private_directory as module
from tgi.launcher.private_directory import places, private_directory

HOLD = """
import sys, time
from tgi.launcher.private_directory import private_directory
with private_directory({"TMPDIR": sys.argv[1]}) as directory:
    (directory / "engine.sock").write_text("x")
    print(directory, flush=True)
    time.sleep(60)
"""


def hold(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process with a directory of its own."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_leaves_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    killed, left = hold(tmp_path)
    killed.kill()
    killed.wait()
    alive, kept = hold(tmp_path)  # it is the next one, so it removes what the first has left
    try:
        assert not left.exists() and (kept / "engine.sock").exists()
        others = [tmp_path / "tgi-of-others", tmp_path / "tgi-file"]
        others[0].mkdir()
        others[1].write_text("x")
        with private_directory({"TMPDIR": str(tmp_path)}) as own:
            assert stat.S_IMODE(own.stat().st_mode) == 0o700
            assert kept.exists() and all(other.exists() for other in others)
    finally:
        alive.kill()
        alive.wait()
    assert not own.exists()
    with private_directory({"TMPDIR": str(tmp_path)}):
        assert not kept.exists()
    assert caplog.messages == [f"Removing {kept}, which a process that was killed has left"]


@pytest.mark.parametrize("length", [90, 107, 4000])
def test_long_temporary_directories(length: int, tmp_path: Path) -> None:
    long = f"{tmp_path}/{'x' * length}"
    assert long not in places({"TMPDIR": long})
    with private_directory({"TMPDIR": long}) as directory:
        assert len(str(directory / "engine.sock.alive")) <= module.SOCKET_PATH_BYTES


def test_bytes_count_and_not_characters(tmp_path: Path) -> None:
    assert places({"TMPDIR": "/" + "ä" * 40})[0] != "/" + "ä" * 40


def test_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FALLBACKS", ())
    with pytest.raises(StartupError, match="set TMPDIR to a directory that can be written to"), private_directory({}):
        pass
