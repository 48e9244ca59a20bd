"""The live page: numbers, a request's timeline, errors, the key."""

from __future__ import annotations

import threading

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


def test_what_an_open_request_is_in(open_page: Open, server: UiServer) -> None:
    """In the queue, then its prompt is read, then it generates: the timeline ends with that, and grows."""
    server.engine.queue_s, server.engine.prefill_s, server.engine.rate = 3.0, 4.0, 10.0
    server.engine.replies = ["word " * 20]
    page = open_page("dashboard")
    body = {"inputs": "x", "parameters": {"max_new_tokens": 100}}
    asking = threading.Thread(target=httpx.post, args=(f"{server.url}/generate",), kwargs={"json": body, "timeout": 60})
    asking.start()
    page.get_by_role("button", name="#1", exact=True).click()
    bar = page.locator(".details .big-bar .phase")
    for kind in ("queue", "prefill", "decode"):
        page.locator(f".details .big-bar .{kind}:last-child").wait_for(state="attached")
        kinds = bar.evaluate_all("phases => phases.map((phase) => phase.className.replace('phase ', ''))")
        assert kinds[-1] == kind and kinds == ["line", "check", "queue", "prefill", "decode"][: len(kinds)]
        assert page.locator(".requests .tag", has_text="running").count() == 1
    page.locator(".details .reasons").get_by_text("Read its own prompt for").wait_for()
    asking.join()


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
