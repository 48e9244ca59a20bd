"""The OpenAPI document against what routes do: schemathesis makes requests from it and checks every answer."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from tests.api.fake import FakeEngine, build_app, serve

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)


async def schemathesis(app: Starlette, directory: Path, *options: str) -> None:
    """A run against a real server in a directory of its own, where it keeps what it found."""
    async with serve(app) as address:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{address}/api-doc/openapi.json"),
            *("--no-color", "--continue-on-failure", "--seed", "1", *options),
            cwd=directory,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode(errors="replace")


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_answer_is_undocumented(tmp_path: Path) -> None:
    """Examples, every value at its bounds and beyond, and random bodies on every route."""
    app = build_app(FakeEngine())
    phases = "examples,coverage,fuzzing"
    await schemathesis(app, tmp_path, "--checks", ",".join(CHECKS), "--max-examples", "5", "--phases", phases)


TROUBLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no key": ({}, {"api_keys": ("key",)}),
    "failing": ({"fail_after": 1}, {}),
    "crashing": ({"crash_after": 1, "alive": False}, {}),
}
"""What is wrong: attributes of the engine, settings. Full and draining servers are in test_openapi.py."""


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_no_answer_in_trouble_is_undocumented(tmp_path: Path, trouble: str) -> None:
    """The examples, streams among them, while nothing works."""
    engine = FakeEngine()
    wrong, settings = TROUBLES[trouble]
    for name, value in wrong.items():
        setattr(engine, name, value)
    conformance = [check for check in CHECKS if check.endswith("conformance")]
    options = ("--checks", ",".join(conformance), "--phases", "examples")
    await schemathesis(build_app(engine, **settings), tmp_path, *options)
