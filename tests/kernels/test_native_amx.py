"""The AMX kernels on processors without AMX: every test of the native kernels, with the tile instructions emulated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tgi.kernels.native import library

ROOT = Path(__file__).resolve().parents[2]
EMULATION = ROOT / "tests/native/amx_emulated.h"
TESTS = [f"tests/kernels/test_native_{name}.py" for name in ("linear", "apart", "eight", "attention", "program")]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_amx_kernels_where_tiles_are_emulated(tmp_path: Path) -> None:
    if "avx512" not in library.runnable():
        pytest.skip("a processor with AVX-512 (VNNI) is needed")
    if not shutil.which("g++"):
        pytest.skip("g++ is needed")
    shutil.copytree(ROOT / "src/tgi", tmp_path / "src/tgi", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    command = [sys.executable, "setup.py", "-q", "build_ext", "-j2"]
    command += ["--build-lib", str(tmp_path / "src"), "--build-temp", str(tmp_path / "temp")]
    compilers = {"CC": f"gcc -include {EMULATION}", "CXX": f"g++ -include {EMULATION}"}
    subprocess.run(command, cwd=ROOT, env=os.environ | compilers, check=True, timeout=550, capture_output=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.native.claims_amx"]
    command += ["-k", "avx512_amx", *TESTS]
    paths = {"PYTHONPATH": f"{tmp_path / 'src'}:{ROOT}"}
    result = subprocess.run(command, cwd=ROOT, env=os.environ | paths, timeout=550, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout and "skipped" not in result.stdout, result.stdout
