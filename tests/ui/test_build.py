"""The committed pages are what their sources give, and the lock file names no registry."""

from __future__ import annotations

import json

import pytest
from tools import check_web

WEB = check_web.WEB


def test_the_build_is_reproduced() -> None:
    """Every file, byte by byte."""
    try:
        assert check_web.differences() == []
    except check_web.NoNodeError as error:
        pytest.skip(str(error))


def test_what_is_committed_belongs_together() -> None:
    """Where nothing can be built this tells of a page that was changed by hand, and of sources that were not built."""
    assert json.loads(check_web.RECORD.read_text()) == check_web.record(), "run `make web`, and commit what it writes"


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
