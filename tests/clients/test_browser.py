"""openai-js in a browser, on a page of another origin, with a key."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.clients.conftest import KEY, SCRIPTS
from tests.clients.environments import CannotInstall, cache_directory, ensure
from tests.e2e.launched import Launched

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_MS = 60_000


class Files(SimpleHTTPRequestHandler):
    """Silent, and sure of what a module is."""

    def guess_type(self, path: object) -> str:
        return "text/javascript" if str(path).endswith(".mjs") else super().guess_type(path)  # type: ignore[arg-type]

    def log_message(self, *unused: object) -> None:
        pass


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[str]:
    """Where the page and the package are, which is not where the server is."""
    try:
        ensure("node")
    except CannotInstall as reason:
        pytest.skip(f"cannot install openai-js: {reason}")
    (tmp_path / "openai").symlink_to(cache_directory() / "node" / "node_modules" / "openai")
    shutil.copy(SCRIPTS / "browser_page.html", tmp_path)
    files = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=str(tmp_path)))
    threading.Thread(target=files.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{files.server_port}"
    files.shutdown()
    files.server_close()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_openai_js_from_another_origin(origin: str, guarded: Launched) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{origin}/browser_page.html?{urlencode({'url': guarded.url, 'key': KEY})}")
        page.wait_for_function("window.result !== undefined", timeout=PATIENCE_MS)
        answers = page.evaluate("window.result")
        browser.close()
    assert "failed" not in answers, answers
    assert "".join(answers["chunks"]) == answers["whole"]
    assert len(answers["chunks"]) > 2
    assert answers["ignored"] == "no_such_field"
    assert answers["refused"] == 401
    assert answers["models"] == 1
