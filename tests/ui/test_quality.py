"""How the pages are for everybody: faults that axe finds, both languages, small screens, and speed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from tools import check_web

from tests.ui.conftest import Open
from tests.ui.scripted import UiServer
from tests.ui.test_chat import answered, say

RICH = (
    "# Title\n\nText with `code`, **bold** and $x^2$.\n\n| a | b |\n| - | - |\n| 1 | 2 |\n\n"
    "```python\nprint(1)\n```\n\n"
)
VIEWS = ["", "#/compare", "#/complete", "dashboard"]


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, at the version that `web/` names."""
    try:
        with check_web.installed() as (web, _):
            return (web / "node_modules" / "axe-core" / "axe.min.js").read_text()
    except check_web.NoNodeError as error:
        pytest.skip(str(error))


def faults(page: Any, axe: str) -> list[str]:
    """Serious ones, by axe; its script is injected past the page's policy by the browser's own protocol."""
    page.evaluate(axe + "\n;0")
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {[node['html'][:120] for node in one['nodes'][:3]]}" for one in serious]


def fill(page: Any, path: str) -> None:
    if path == "":
        say(page, "Hello")
        answered(page, "Text with")
    elif path == "#/compare":
        page.get_by_label("Prompt", exact=True).fill("Hello")
        page.keyboard.press("Enter")
        page.locator(".verdict").wait_for()
    elif path == "#/complete":
        page.get_by_label("Text to continue").first.fill("Hello")
        page.keyboard.press("Control+Enter")
        page.locator(".continuation .facts").wait_for()
    else:
        page.locator(".tiles").wait_for()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", VIEWS)
def test_axe_finds_no_serious_fault(open_page: Open, server: UiServer, path: str, scheme: str, axe: str) -> None:
    server.engine.replies = [RICH]
    page = open_page(path, color_scheme=scheme)
    fill(page, path)
    assert faults(page, axe) == []


@pytest.mark.slow
@pytest.mark.parametrize("path", VIEWS)
def test_nothing_is_wider_than_a_phone(open_page: Open, server: UiServer, path: str, axe: str) -> None:
    server.engine.replies = [RICH + "long " * 30 + "x" * 200]
    page = open_page(path, phone=True)
    fill(page, path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert faults(page, axe) == []


def test_drawers_of_a_phone(open_page: Open, server: UiServer) -> None:
    page = open_page(phone=True)
    page.get_by_role("button", name="Show settings").click()
    page.get_by_label("System prompt").fill("Be kind.")
    page.keyboard.press("Escape")
    say(page, "Hi")
    answered(page, "Hello world")
    assert server.prompts[0].startswith("[system]Be kind.")


def test_chinese(open_page: Open, server: UiServer) -> None:
    page = open_page(locale="zh-TW")
    page.get_by_text("想試些什麼？").wait_for()
    assert page.evaluate("document.documentElement.lang") == "zh-Hant"
    page.get_by_role("button", name="English").click()
    page.get_by_text("What shall we try?").wait_for()
    page.reload()
    page.get_by_text("What shall we try?").wait_for()


def test_both_languages_have_the_same_places() -> None:
    """That both have all sentences the compiler checks; here, that what is filled in is filled in in both."""
    texts = {}
    for name in ("en", "zh"):
        source = (Path(__file__).parents[2] / "web/src/lib" / f"strings.{name}.ts").read_text()
        pairs = re.findall(r"^  (\w+): (['\"])(.*)\2,$", source, re.M)
        texts[name] = {key: sorted(set(re.findall(r"\{(\w+)\}", text))) for key, _, text in pairs}
    assert len(texts["en"]) > 200
    assert texts["en"] == texts["zh"]


def test_light_and_dark(open_page: Open) -> None:
    page = open_page(color_scheme="dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Appearance: As the system").click()
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != light
    page.reload()
    page.wait_for_selector("header strong")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == light


@pytest.mark.slow
def test_the_first_paint_comes_within_a_second(open_page: Open) -> None:
    page = open_page()
    paints = page.evaluate("performance.getEntriesByType('paint').map(e => [e.name, e.startTime])")
    assert dict(paints)["first-contentful-paint"] < 1000


LONG = (RICH + "Words that flow like water, one after another, and never end. " * 6 + "\n\n") * 5
WATCH = """() => { window.long = [];
  new PerformanceObserver(list => window.long.push(...list.getEntries().map(e => e.duration)))
    .observe({type: 'longtask', buffered: true}); }"""


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [False, True])
def test_a_fast_stream_keeps_the_page_responsive(open_page: Open, server: UiServer, tokens: bool) -> None:
    """2,000 tokens at 1,000 a second; no task of the page takes 100 ms."""
    server.engine.replies, server.engine.rate = [LONG[:1999]], 1000.0
    page = open_page()
    if tokens:
        page.get_by_role("switch", name="Token probabilities").check()
    say(page, "Hi")
    answered(page, "Words that flow")
    page.evaluate(WATCH)
    longest = []
    for version in (2, 3, 4):  # the best of three: others use this machine, too
        page.evaluate("window.long = []")
        page.get_by_role("button", name="Regenerate").click()
        page.locator(f".versions >> text={version}/{version}").wait_for()
        page.locator(".message.assistant .facts").wait_for()
        page.wait_for_timeout(500)
        longest.append(page.evaluate("Math.max(0, ...window.long)"))
    print(json.dumps({"longest tasks, ms": longest, "facts": page.locator(".facts").inner_text()}))
    assert min(longest) < 100


def test_conversations_leave_and_come_back(open_page: Open, server: UiServer, tmp_path: Path) -> None:
    page = open_page()
    say(page, "Keep this")
    answered(page, "Hello world")
    with page.expect_download() as download:
        page.locator(".side-foot").get_by_role("button", name="Export as JSON").click()
    file = tmp_path / "chats.json"
    download.value.save_as(file)
    page.get_by_role("button", name="Delete all").click()
    page.locator("dialog").get_by_role("button", name="Delete all").click()
    page.locator(".chat-list a").wait_for(state="detached")
    page.locator("input[type=file]").set_input_files(file)
    page.locator(".chat-list a", has_text="Keep this").click()
    answered(page, "Hello world")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_on_what_opens(open_page: Open, server: UiServer, scheme: str, axe: str) -> None:
    """All settings unfolded with their explanations, the tokens of an answer, dialogs, a menu."""
    page = open_page(color_scheme=scheme)
    for summary in ("Penalties", "Reasoning", "Advanced", "Tools"):
        page.locator(".settings summary", has_text=summary).click()
    for button in page.locator(".help-button").all():
        button.click()
    page.get_by_role("button", name="Insert an example").click()
    page.get_by_label("Answer format").select_option("schema")
    page.get_by_role("switch", name="Token probabilities").check()
    assert faults(page, axe) == []
    page.get_by_label("Answer format").select_option("text")
    say(page, "Hello")
    answered(page, "Hello world")
    page.get_by_role("button", name="Tokens", exact=True).click()
    page.locator(".tokens .token").nth(2).hover()
    page.locator(".alternatives").wait_for()
    assert faults(page, axe) == []
    page.locator(".chat-list li").hover()
    page.locator(".chat-list summary").click()
    assert faults(page, axe) == []
    page.get_by_role("button", name="Rename").click()
    assert faults(page, axe) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Show code").click()
    assert faults(page, axe) == []


@pytest.mark.slow
def test_axe_on_a_chosen_request(open_page: Open, server: UiServer, axe: str) -> None:
    httpx.post(f"{server.url}/generate", json={"inputs": "x"})
    httpx.post(f"{server.url}/generate", json={"inputs": "x", "parameters": {"top_p": 5}})
    for options in ({}, {"color_scheme": "dark"}, {"phone": True}):
        page = open_page("dashboard", **options)
        page.get_by_role("button", name="#1", exact=True).click()
        page.locator(".phase-list").wait_for()
        assert faults(page, axe) == []
