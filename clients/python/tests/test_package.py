"""The distribution: what importing it loads, what it depends on, and the commands of its README."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import text_generation

ROOT = Path(__file__).parent.parent
UNWANTED = ("torch", "transformers", "huggingface_hub", "aiohttp", "requests", "tgi")


def test_import_loads_nothing_heavy_and_does_not_warn() -> None:
    code = f"import sys, text_generation; print([name for name in {UNWANTED!r} if name in sys.modules])"
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=50)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[<>=]", dependency)[0] for dependency in project["dependencies"]}
    assert names == {"httpx", "pydantic", "typing_extensions"}
    assert project["name"] == "text-generation"


def test_version_is_in_the_changelog() -> None:
    assert f"## {text_generation.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_python_in_the_readme_compiles() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        compile(block, "README.md", "exec", flags=0x2000)  # PyCF_ALLOW_TOP_LEVEL_AWAIT


def test_it_says_that_it_is_typed() -> None:
    assert (Path(text_generation.__file__).parent / "py.typed").is_file()
