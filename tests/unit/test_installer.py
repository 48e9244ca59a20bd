"""What tools/install.py says before and while it installs; `e2e/test_install.py` runs it for real."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "tools" / "install.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_time_and_disk_are_said_first(installer: ModuleType, tmp_path: Path) -> None:
    said = installer.outlook(tmp_path / ".venv", "cpu", False)
    assert "about 4 minutes and 1.3 GB" in said
    assert "are free" in said
    assert "7.5 GB" in installer.outlook(tmp_path / ".venv", "default", False)
    assert "about 6 minutes and 2.0 GB" in installer.outlook(tmp_path / ".venv", "cpu", True)


def test_a_full_disk_is_warned_about(installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(installer.shutil.disk_usage(tmp_path))(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(installer.shutil, "disk_usage", lambda path: usage)
    assert "not enough" in installer.outlook(tmp_path / ".venv", "cpu", False)


def test_a_missing_compiler_is_said(installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer.shutil, "which", lambda name: None)
    assert "apt install g++" in installer.outlook(tmp_path / ".venv", "cpu", False)


def test_nothing_is_said_of_later_installations(installer: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "lib/python3.12/site-packages/torch").mkdir(parents=True)
    assert installer.outlook(tmp_path, "cpu", False) == ""


def test_logs_see_progress(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    monkeypatch.setattr(installer, "PROGRESS_S", 0.05)
    assert installer.call([sys.executable, "-c", "import time; time.sleep(0.5)"], tmp_path, show=True) == 0
    assert f"3 MB in {tmp_path}" in capfd.readouterr().out


def test_compiled_files_are_counted(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the minutes in which nothing else grows."""
    monkeypatch.setattr(installer.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(installer, "PROGRESS_S", 0.05)
    (tmp_path / "tmp1.build-temp" / "csrc").mkdir(parents=True)
    for name in ("one.o", "two.o"):
        (tmp_path / "tmp1.build-temp" / "csrc" / name).touch()
    (tmp_path / "killed.build-temp").mkdir()
    (tmp_path / "killed.build-temp" / "old.o").touch()
    os.utime(tmp_path / "killed.build-temp" / "old.o", (1000, 1000))
    installer.call([sys.executable, "-c", "import time; time.sleep(0.5)"], tmp_path / ".venv", show=True)
    assert "compiling the native kernels, files done: 2," in capfd.readouterr().out


def test_kernels_are_compiled_once(installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' installation after the server's takes them as they are, until a source changes."""
    monkeypatch.chdir(tmp_path)
    venv, native = tmp_path / ".venv", tmp_path / "src/tgi/kernels/native"
    for path in (venv / "stamps", native, tmp_path / "csrc"):
        path.mkdir(parents=True)
    for path in (tmp_path / "setup.py", tmp_path / "csrc/linear.cpp"):
        path.touch()
    assert not installer.kernels_are_built(venv), "nothing is installed"
    os.utime(tmp_path / "csrc/linear.cpp", (1000, 1000))
    (venv / ".installed").touch()
    assert not installer.kernels_are_built(venv), "there was no compiler"
    (native / "libtgi_portable.so").touch()
    assert installer.kernels_are_built(venv)
    os.utime(tmp_path / "csrc/linear.cpp", (2**32, 2**32))
    assert not installer.kernels_are_built(venv), "a source has changed"
