"""Chromium (Debian's, or what CHROMIUM names) on the real application over a scripted engine.

All are skipped where there is no browser: `make test` needs none, `make test-ui` says what is missing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.ui.scripted import UiServer

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Closed after these tests: while it is open no other test could run an event loop in this thread."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium, or set CHROMIUM to its path")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def server(browser: Any) -> Iterator[UiServer]:
    with UiServer() as server:
        yield server


Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any, server: UiServer) -> Iterator[Open]:
    """`open_page("compare", phone=True, color_scheme="dark", locale="zh-TW")`: a page that has loaded.

    In the end nothing may have been requested elsewhere, nothing refused by the policy, nothing raised.
    """
    contexts: list[Any] = []
    wrong: list[str] = []

    def open_it(path: str = "", *, phone: bool = False, url: str = "", **options: Any) -> Any:
        size = {"width": 390, "height": 844} if phone else {"width": 1360, "height": 860}
        context = browser.new_context(**{"viewport": size, "has_touch": phone, "locale": "en-US"} | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        base = url or server.url
        page.on("request", lambda request: _note_foreign(request.url, base, wrong))
        page.on("pageerror", lambda error: wrong.append(f"raised: {error}"))
        page.on("console", lambda message: _note_console(message, wrong))
        page.goto(f"{base}/{path}")
        page.wait_for_selector("header strong, .dash", state="attached")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert not wrong


def _note_foreign(url: str, base: str, wrong: list[str]) -> None:
    if not url.startswith((base, "data:", "blob:")):
        wrong.append(f"requested {url}")


def _note_console(message: Any, wrong: list[str]) -> None:
    if message.type == "error" and "Failed to load resource" not in message.text:  # a status that a test provokes
        wrong.append(f"console: {message.text}")
