"""The tests of the client package, which has settings of its own, as part of `make test`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.launched import ROOT


@pytest.mark.timeout(300)
def test_its_tests_pass() -> None:
    package = ROOT / "clients" / "python"
    command = [sys.executable, "-m", "pytest", "-c", str(package / "pyproject.toml"), "-p", "no:cacheprovider"]
    result = subprocess.run([*command, str(package)], cwd=package, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
