"""Fixtures of the API tests: an engine, and a client of the application around it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.api.fake import FakeEngine, build_app
from tgi.launcher import http_half_close


@pytest.fixture(autouse=True)
def leaving_shows_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that closes its connection could only have stopped sending: the server looks after this time."""
    monkeypatch.setattr(http_half_close, "FIRST_PROBE_S", 0.05)
    monkeypatch.setattr(http_half_close, "LOOK_EVERY_S", 0.01)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def client(engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build_app(engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
