"""Generated pages are those that the code would write, and links between our pages lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tgi.commands.inspect.titles import TITLES
from tgi.models.families.registry import FAMILIES

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def test_generated_pages_are_up_to_date() -> None:
    command = [sys.executable, "tools/generate_docs.py", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, f"{result.stdout}{result.stderr}: run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_family_is_tested() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", (ROOT / "docs/models.md").read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == ["model_type", *sorted(FAMILIES)]
    assert [name for name, cases in rows if not cases.strip()] == []


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "docs/adding-a-model.md", "docs/models.md"])
def test_every_family_is_named(page: str) -> None:
    assert set(TITLES) == set(FAMILIES)
    text = " ".join((ROOT / page).read_text().split())
    assert [name for name in TITLES.values() if not re.search(rf"\b{re.escape(name)}(?!\w)", text)] == []
