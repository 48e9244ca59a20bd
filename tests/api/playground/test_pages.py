"""Who gets a page at `/`, how its files are sent, and that nothing but our own files can be loaded."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import tgi.api.playground
from tests.api.fake import FakeEngine, build_app

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
STATIC = Path(tgi.api.playground.__file__).parent / "static"
BUDGET = 400_000
"""Bytes of all built files, with gzip."""


@asynccontextmanager
async def client_of(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build_app(FakeEngine(), **settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", ""])
async def test_probes_get_the_empty_answer(client: httpx.AsyncClient, accept: str | None) -> None:
    answer = await client.get("/", headers={} if accept is None else {"accept": accept})
    assert (answer.status_code, answer.content) == (200, b"")


async def test_browsers_get_the_page(client: httpx.AsyncClient) -> None:
    answer = await client.get("/", headers={"accept": BROWSER})
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert "accept" in answer.headers["vary"]
    assert b'<div id="app">' in answer.content


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/?verbose=1"])
async def test_not_where_its_files_would_be_missing(client: httpx.AsyncClient, path: str) -> None:
    assert b"<html" not in (await client.get(path, headers={"accept": BROWSER})).content


@pytest.mark.parametrize("path", ["/", "/dashboard"])
async def test_all_that_a_page_names_is_there(client: httpx.AsyncClient, path: str) -> None:
    page = (await client.get(path, headers={"accept": BROWSER})).text
    names = re.findall(r'(?:src|href)="\./([^"]+)"', page)
    assert names
    for name in names:
        answer = await client.get(f"/{name}")
        assert answer.status_code == 200, name
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/dashboard"])
async def test_the_policy_allows_nothing_inline_and_nothing_foreign(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"accept": BROWSER})
    policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?://", answer.text)


async def test_unchanged_files_are_not_sent_again(client: httpx.AsyncClient) -> None:
    first = await client.get("/", headers={"accept": BROWSER})
    again = await client.get("/", headers={"accept": BROWSER, "if-none-match": f'W/{first.headers["etag"]}, "x"'})
    assert (again.status_code, again.content) == (304, b"")
    assert "content-security-policy" in again.headers


async def test_files_are_compressed_for_those_who_can(client: httpx.AsyncClient) -> None:
    name = next(path.name for path in (STATIC / "playground").glob("index-*.js"))
    small = await client.get(f"/playground/{name}", headers={"accept-encoding": "gzip"})
    plain = await client.get(f"/playground/{name}", headers={"accept-encoding": "identity"})
    assert small.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert small.content == plain.content == (STATIC / "playground" / name).read_bytes()


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fassets.py", "index.html", "playground", "%2e%2e"])
async def test_no_other_file_can_be_named(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get(f"/playground/{name}")).status_code in (404, 405)


async def test_disabled() -> None:
    async with client_of(disable_playground=True) as client:
        assert (await client.get("/", headers={"accept": BROWSER})).content == b""
        for path in ("/dashboard", "/dashboard/data", "/playground/licenses.txt"):
            assert (await client.get(path)).status_code == 404


def test_size_of_all_files() -> None:
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < BUDGET
