"""The pages about errors and about differences from TGI say what the code and the tests say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tgi.api.wire.errors
from tgi import errors

ROOT = Path(__file__).parents[2]
COMPATIBILITY = (ROOT / "docs" / "tgi-compatibility.md").read_text()
ERRORS = (ROOT / "docs" / "errors.md").read_text()


def answered() -> list[type[errors.TgiError]]:
    """Every error that HTTP answers, but for the one whose `error_type` is given where it is raised."""
    found = [errors.TgiError]
    for kind in found:
        found += kind.__subclasses__()
    return [kind for kind in found[1:] if kind is not tgi.api.wire.errors.WordedError]


def error_rows() -> list[str]:
    rows = []
    for kind in answered():
        status = "400, 413, 415, 422" if kind is errors.MalformedRequestError else str(kind.status)
        counted = f"`{kind.metric}`" if kind.metric else ""
        meaning = (kind.__doc__ or "").strip().splitlines()[0].split(" (TGI")[0].rstrip(".")
        rows.append(f"| `{kind.error_type}` | {status} | `{kind.openai_type}` | {counted} | {meaning} |")
    return rows


def test_every_error_is_documented() -> None:
    """On a difference copy the rows from here."""
    table = ERRORS.split("## Kinds")[1].split("##")[0]
    assert [line for line in table.splitlines() if line.startswith("| `")] == error_rows()


def named_tests() -> list[str]:
    return re.findall(r"`(tests/[\w/]+\.py::\w+)`", COMPATIBILITY)


@pytest.mark.parametrize("name", sorted(set(named_tests())))
def test_a_named_test_exists(name: str) -> None:
    path, function = name.split("::")
    assert re.search(rf"^(async )?def {function}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_every_difference_names_a_test() -> None:
    rows = [line for line in COMPATIBILITY.splitlines() if line.startswith("| ") and "---" not in line]
    differences = [row for row in rows if not row.startswith("| subject")]
    assert len(differences) > 30
    assert [row for row in differences if "`tests/" not in row] == []
