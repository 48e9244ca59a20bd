"""The conversation: sending, streaming, stopping, editing, versions, and what is kept."""

from __future__ import annotations

import re
from typing import Any

from tests.ui.conftest import Open
from tests.ui.scripted import UiServer


def say(page: Any, text: str) -> None:
    page.fill("#message", text)
    page.keyboard.press("Enter")


def answered(page: Any, text: str) -> None:
    page.locator(".message.assistant").last.locator(".facts").wait_for()
    page.locator(".message.assistant").last.get_by_text(text).first.wait_for()


def test_an_answer_is_rendered_and_kept(open_page: Open, server: UiServer) -> None:
    server.engine.replies = ["Some **bold** text and code:\n\n```python\nprint(1)\n```\n\nSo $x^2$ it is."]
    page = open_page()
    say(page, "Hello there")
    answered(page, "text and code")
    assert page.locator(".markdown strong").inner_text() == "bold"
    assert page.locator(".code pre .hljs-built_in").inner_text() == "print"
    page.wait_for_selector("math msup")
    assert server.prompts == ["[user]Hello there[assistant]"]
    page.reload()
    answered(page, "text and code")
    page.get_by_role("button", name="New chat").click()
    page.get_by_text("What shall we try?").wait_for()
    page.locator(".chat-list a", has_text="Hello there").click()
    answered(page, "text and code")


def test_stop_and_continue(open_page: Open, server: UiServer) -> None:
    server.engine.replies, server.engine.rate = ["word " * 400, "the end"], 50.0
    page = open_page()
    say(page, "Go")
    page.locator(".markdown", has_text="word word").wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_selector(".facts >> text=Stopped")
    said = page.locator(".markdown").inner_text()
    assert 10 < len(said) < 1000
    page.get_by_role("button", name="Continue", exact=True).click()
    page.locator(".markdown", has_text="the end").wait_for()
    assert server.prompts[1].startswith("[user]Go[assistant]word word")


def test_versions_of_answers_and_of_questions(open_page: Open, server: UiServer) -> None:
    server.engine.replies = ["first", "second", "third"]
    page = open_page()
    say(page, "Q1")
    answered(page, "first")
    page.get_by_role("button", name="Regenerate").click()
    page.locator(".versions >> text=2/2").wait_for()
    answered(page, "second")
    page.get_by_role("button", name="Previous version").click()
    answered(page, "first")
    page.locator(".message.user").hover()
    page.locator(".message.user").get_by_role("button", name="Edit").click()
    page.locator(".editing textarea").fill("Q2")
    page.get_by_role("button", name="Send as a new version").click()
    answered(page, "third")
    assert server.prompts[-1] == "[user]Q2[assistant]"
    page.locator(".message.user").hover()
    page.locator(".message.user").get_by_role("button", name="Previous version").click()
    assert page.locator(".bubble").inner_text() == "Q1"


def test_system_prompt_and_parameters_are_sent(open_page: Open, server: UiServer) -> None:
    page = open_page()
    page.get_by_label("System prompt").fill("Be short.")
    page.get_by_label("Top-k", exact=True).first.fill("7")
    page.get_by_label("Temperature", exact=True).first.fill("0.5")
    page.get_by_label("Seed", exact=True).fill("42")
    page.get_by_label("Stop strings", exact=True).fill("END\\n\nHALT")
    say(page, "Hi")
    answered(page, "Hello world")
    request = server.engine.requests[0]
    assert (request.sampling.top_k, request.sampling.temperature, request.seeds) == (7, 0.5, (42,))
    assert server.prompts[0] == "[system]Be short.[user]Hi[assistant]"
    page.get_by_label("Reset Top-k").click()
    say(page, "Again")
    page.locator(".message.assistant").nth(1).locator(".facts").wait_for()
    assert server.engine.requests[1].sampling.top_k == 0


def test_errors_are_shown_in_the_servers_words(open_page: Open, server: UiServer) -> None:
    server.engine.fail_after = 1
    page = open_page()
    say(page, "Hi")
    page.locator(".error", has_text="the device caught fire").wait_for()
    assert page.get_by_role("button", name="Send", exact=True).count()


def test_a_server_with_a_key_asks_for_it(open_page: Open) -> None:
    with UiServer(api_key="s3cret") as locked:
        page = open_page(url=locked.url)
        say(page, "Hi")
        page.locator("dialog >> text=This server wants an API key").wait_for()
        assert page.locator("dialog input").evaluate("element => element === document.activeElement")
        page.locator("dialog input").fill("s3cret")
        page.locator("dialog").get_by_role("button", name="Save").click()
        page.get_by_role("button", name="Regenerate").click()
        answered(page, "Hello world")
        assert page.evaluate("sessionStorage.getItem('tgi.key')") == "s3cret"
        assert "s3cret" not in page.evaluate("JSON.stringify(localStorage)")


def test_delete_a_conversation(open_page: Open, server: UiServer) -> None:
    page = open_page()
    say(page, "Away with it")
    answered(page, "Hello world")
    page.locator(".chat-list li").hover()
    page.locator(".chat-list summary").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.locator("dialog").get_by_role("button", name="Delete").click()
    page.get_by_text("What shall we try?").wait_for()
    page.reload()
    page.locator(".sidebar >> text=Conversations are kept in this browser").wait_for()


def test_html_of_a_model_is_text(open_page: Open, server: UiServer) -> None:
    server.engine.replies = ["<img src=x onerror=alert(1)> <script>alert(2)</script> ![p](http://a.example/x.png)"]
    page = open_page()
    say(page, "Hi")
    answered(page, "<img src=x onerror=alert(1)>")
    assert not page.locator(".markdown img, .markdown script").count()
    assert re.search(r"http://a\.example", page.locator(".markdown a").get_attribute("href") or "")


def test_an_answer_that_is_left_is_kept(open_page: Open, server: UiServer) -> None:
    server.engine.replies, server.engine.rate = ["word " * 400], 50.0
    page = open_page()
    say(page, "Go")
    page.locator(".markdown", has_text="word word").wait_for()
    page.reload()
    page.locator(".facts >> text=Stopped").wait_for()
    assert "word word" in page.locator(".markdown").inner_text()
