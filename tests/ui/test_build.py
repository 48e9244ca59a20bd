"""The committed pages are what their sources give, and the lock file names no registry."""

from __future__ import annotations

import json
import shutil

import pytest
from tools.check_web import ROOT, differences

WEB = ROOT / "web"


@pytest.mark.slow
def test_the_build_is_reproduced() -> None:
    if shutil.which("npx") is None:
        pytest.skip("Node is not installed")
    if not (WEB / "node_modules" / "vite").is_dir():
        pytest.skip("the packages are not installed: cd web && npm ci")
    assert differences() == []


def test_the_lock_file_names_no_registry() -> None:
    text = (WEB / "package-lock.json").read_text()
    assert '"resolved"' not in text
    assert text.count('"integrity"') > 5


def test_versions_are_pinned() -> None:
    package = json.loads((WEB / "package.json").read_text())
    versions = [*package["dependencies"].values(), *package["devDependencies"].values()]
    assert all(version[0].isdigit() for version in versions), versions
    assert (WEB / ".npmrc").read_text().count("omit-lockfile-registry-resolved=true") == 1


def test_the_lock_file_has_all_that_it_names() -> None:
    """Else `npm ci` refuses it: an optional package that the registry lacks is left out of the file in silence."""
    packages = json.loads((WEB / "package-lock.json").read_text())["packages"]
    known = {path.rpartition("node_modules/")[2] for path in packages}
    named = {
        (path, name)
        for path, package in packages.items()
        for kind in ("dependencies", "optionalDependencies", "devDependencies")
        for name in package.get(kind, {})
    }
    assert len(named) > 10
    assert [(path, name) for path, name in sorted(named) if name not in known] == []
