"""A wheel, made as for others, serves with native kernels where there is no compiler."""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.e2e.launched import ROOT, free_port
from tests.e2e.test_install import copy_project, pip_variables, wait_connected

INSTALL = runpy.run_path(str(ROOT / "tools/install.py"), run_name="install")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made with `python -m build`, from the source distribution, with every level of this architecture."""
    home = tmp_path_factory.mktemp("wheel")
    project = copy_project(home / "clone")
    variables = pip_variables(home, TGI_ALL_LEVELS="1")
    subprocess.run([sys.executable, "-m", "build"], cwd=project, env=variables, check=True, timeout=2400)
    (made,) = (project / "dist").glob("*.whl")
    return made


def test_it_has_all_levels_and_all_data(wheel: Path) -> None:
    assert re.search(r"-py3-none-(linux|macosx)_\w+\.whl$", wheel.name), "one for every Python of a platform"
    names = zipfile.ZipFile(wheel).namelist()
    levels = {match[1] for name in names if (match := re.search(r"libtgi_(\w+)\.so$", name))}
    source = (ROOT / "setup.py").read_text()
    table = "ARM_LEVELS" if os.uname().machine in ("aarch64", "arm64") else "X86_LEVELS"
    (known,) = re.findall(rf"^{table} = {{(.*?)^}}", source, re.MULTILINE | re.DOTALL)
    assert levels == {"portable", *re.findall(r'^ +"(\w+)":', known, re.MULTILINE)}
    for name in ("tgi/demo/model.safetensors", "tgi/quant/calibration.txt", "tgi/api/playground/static/index.html"):
        assert name in names


def test_it_serves_where_there_is_no_compiler(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    variables = pip_variables(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], env=variables, check=True, timeout=120)
    variables["PATH"] = str(venv / "bin")
    command = [str(venv / "bin/pip"), "install", "--quiet", str(wheel), f"torch=={INSTALL['TORCH_VERSION']}+cpu"]
    if not INSTALL["finds_torch"](venv):
        command += ["--find-links", INSTALL["CPU_WHEELS"]]
    subprocess.run(command, env=variables, check=True, timeout=1200)
    process = subprocess.Popen(
        [str(venv / "bin/tgi"), "serve", "--port", str(free_port()), "--kv-cache-memory", "16MiB"],
        cwd=tmp_path,
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        log = "".join(wait_connected(process))
        assert re.search(r"Kernels: native \w+ \(embedding, linear", log), log
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
