"""`make docs` makes a site whose links and anchors all lead somewhere, and that needs no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(target)]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, env=variables)
    assert result.returncode == 0, result.stderr
    return target


def test_links_and_anchors_of_every_page_are_right(site: Path) -> None:
    """mkdocs is strict: it has failed above otherwise."""
    pages = {path.name for path in ROOT.glob("docs/*.md")}
    assert {path.name for path in (site / "docs").glob("*.html")} == {name.replace(".md", ".html") for name in pages}


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r"""<(?:script|img|iframe|source)[^>]*src=["']?(?:https?:)?//|<link[^>]*href=["']?(?:https?:)?//"""
    )
    for path in site.rglob("*.html"):
        found = [tag for tag in loads.findall(path.read_text()) if 'rel="canonical"' not in tag]
        assert found == [], path


def test_the_site_can_be_searched(site: Path) -> None:
    assert (site / "search/search_index.json").stat().st_size > 100_000
