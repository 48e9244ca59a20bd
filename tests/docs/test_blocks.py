"""Every block of code in docs/ does what it says, or says why it is not tried.

Two comments before a block steer this: `<!-- not run: reason -->`, and `<!-- run with: environment -->` for other
people's libraries, by a name of `tests/clients/environments.py`. Blocks talk to a server with the demo model. What
loads a model or needs a library is slow. README's blocks are `e2e/test_readme.py`'s.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.clients.environments import ENVIRONMENTS, CannotInstall, cache_directory, ensure
from tests.e2e.conftest import HAS_DEMO, server, tiny_model  # noqa: F401
from tests.e2e.launched import ROOT, Launched, environment
from tgi.settings.parse import parse

BLOCK = re.compile(r"^(?:<!-- (run with|not run): ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DATA = {"json": json.loads, "yaml": yaml.safe_load}
has_demo = pytest.mark.skipif(not HAS_DEMO, reason="the demo model is not there")


@dataclass(frozen=True)
class Block:
    """One of a page."""

    page: str
    number: int
    mark: str
    said: str
    language: str
    text: str

    @property
    def calls(self) -> bool:
        """Whether it talks to a server."""
        return "127.0.0.1:8080" in self.text and (self.language != "shell" or self.text.startswith("curl"))


def blocks() -> list[Block]:
    found = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text()
        matches = list(BLOCK.finditer(text))
        assert text.count("```") == 2 * len(matches), f"{page.name}: a block that is indented or open"
        found += [Block(page.name, number, *match.groups(default="")) for number, match in enumerate(matches)]
    return [block for block in found if block.mark != "not run"]


def chosen(*languages: str, calls: bool | None = None) -> list[object]:
    """Parameters of tests: blocks without an environment of their own."""
    wanted = (
        block for block in blocks() if block.language in languages and not block.mark and calls in (None, block.calls)
    )
    return [pytest.param(block, id=f"{block.page}-{block.number}") for block in wanted]


def execute(command: list[str], home: Path, text: str, cwd: Path = ROOT) -> str:
    """Run a command with a text as its input; what it prints."""
    variables = environment(home, PYTHONPATH=f"{ROOT}/src:{ROOT}/clients/python")
    variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
    result = subprocess.run(command, cwd=cwd, env=variables, input=text, capture_output=True, text=True, timeout=110)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_every_block_is_of_a_kind_that_is_tried() -> None:
    assert {block.language for block in blocks()} <= {"", "shell", "python", "javascript", *DATA}
    assert {block.said for block in blocks() if block.mark == "run with"} <= set(ENVIRONMENTS)


@pytest.mark.parametrize("block", chosen(*DATA))
def test_data(block: Block) -> None:
    assert DATA[block.language](block.text)


@pytest.mark.parametrize("block", chosen("shell", calls=True))
def test_calls(block: Block, server: Launched, tmp_path: Path) -> None:  # noqa: F811
    text = block.text.replace("curl ", "curl -sS --fail-with-body ").replace("8080", str(server.port))
    assert execute(["bash", "-e"], tmp_path, text).strip()


@pytest.mark.parametrize("block", chosen("shell", calls=False))
def test_commands(block: Block, tmp_path: Path) -> None:
    """Commands and their flags are there, targets of make too; nothing is started."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "|" in words:
            words = words[words.index("|") + 1 :]
        if words[:1] == ["make"]:
            execute(["make", "--dry-run", *words[1:]], tmp_path, "")
        elif words[:2] == ["tgi", "serve"] or words[:1] == ["text-generation-launcher"]:
            parse(words[2:], {}, positional=True) if words[0] == "tgi" else parse(words[1:], {})
        elif words:
            assert words[0] == "tgi", f"{block.page}: what is not tried is marked so: {line}"
            help = execute([sys.executable, "-m", "tgi", words[1], "--help"], tmp_path, "")
            assert [word for word in words[2:] if word.startswith("--") and word.split("=")[0] not in help] == []


@has_demo
@pytest.mark.parametrize("block", chosen("python", calls=True))
def test_clients(block: Block, server: Launched, tmp_path: Path) -> None:  # noqa: F811
    execute([sys.executable, "-"], tmp_path, block.text.replace("8080", str(server.port)))


@pytest.mark.slow
@has_demo
@pytest.mark.parametrize("block", chosen("python", calls=False))
def test_offline(block: Block, tmp_path: Path) -> None:
    assert execute([sys.executable, "-"], tmp_path, block.text).strip()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "block", [pytest.param(one, id=f"{one.said}-{one.number}") for one in blocks() if one.mark == "run with"]
)
def test_libraries(block: Block, server: Launched, tmp_path: Path) -> None:  # noqa: F811
    try:
        command = ensure(block.said)
    except CannotInstall as reason:
        pytest.skip(f"cannot install {block.said}: {reason}")
    if block.language == "javascript":
        command = [*command, "--input-type=module"]
    text = block.text.replace("8080", str(server.port))
    assert execute([*command, "-"], tmp_path, text, cwd=cache_directory() / block.said).strip()
