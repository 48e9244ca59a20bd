"""The live page: numbers, a request's timeline, errors, the key."""

from __future__ import annotations

import httpx

from tests.ui.conftest import Open
from tests.ui.scripted import UiServer


def test_numbers_and_the_timeline_of_a_request(open_page: Open, server: UiServer) -> None:
    server.engine.prefill_s, server.engine.rate = 0.2, 100.0
    page = open_page("dashboard")
    page.get_by_text("No requests yet").wait_for()
    httpx.post(f"{server.url}/generate", json={"inputs": "a secret"})
    httpx.post(f"{server.url}/generate", json={"inputs": "x", "parameters": {"top_p": 5}})
    page.get_by_role("button", name="#1", exact=True).click()
    details = page.locator(".details")
    details.get_by_text("prompt tokens came from the cache").wait_for()
    assert "generate" in details.inner_text()
    assert page.locator(".details .big-bar .decode").count() == 1
    page.locator(".error-text", has_text="`top_p` must be").wait_for()
    page.locator(".tile", has_text="Time to first token").get_by_text("ms").first.wait_for()
    assert "a secret" not in page.content()
    assert page.locator(".memory-bar span").count() >= 1


def test_pause(open_page: Open, server: UiServer) -> None:
    page = open_page("dashboard")
    page.get_by_text("No requests yet").wait_for()
    page.get_by_role("button", name="Pause").click()
    httpx.post(f"{server.url}/generate", json={"inputs": "x"})
    page.wait_for_timeout(1500)
    assert page.get_by_text("No requests yet").count()
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="#1", exact=True).wait_for()


def test_the_key(open_page: Open) -> None:
    with UiServer(api_key="s3cret") as locked:
        page = open_page("dashboard", url=locked.url)
        page.locator("dialog input").fill("s3cret")
        page.keyboard.press("Enter")
        page.locator(".tiles").wait_for()


def test_an_address_with_a_slash_at_its_end(open_page: Open, server: UiServer) -> None:
    page = open_page("dashboard/")
    assert page.url == f"{server.url}/dashboard"
