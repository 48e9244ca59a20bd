"""The translation example: what it splits, sends, waits for, keeps and writes, against a fake server."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.examples.translate_server import CLIENT, SCRIPT, Answer, FakeServer, load, sample_article, source, translated


@pytest.fixture
def translate() -> ModuleType:
    return load("translate")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def article(tmp_path: Path) -> Path:
    path = tmp_path / "article.md"
    path.write_text(sample_article(), encoding="utf-8")
    return path


@pytest.fixture
def run(translate: ModuleType, server: FakeServer, article: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Run the command on the article, with --completion; its exit status and the written document."""
    return lambda *arguments: execute(translate, server, article, "--completion", *arguments)


@pytest.fixture
def ask(translate: ModuleType, server: FakeServer, article: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """The same by the chat template."""
    return lambda *arguments: execute(translate, server, article, *arguments)


def execute(translate: ModuleType, server: FakeServer, article: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    status = translate.main([str(article), "--base-url", server.url, *arguments])
    return status, json.loads(article.with_suffix(".json").read_text(encoding="utf-8"))


def test_the_chat_template_is_used(ask: Callable[..., Any], server: FakeServer, article: Path) -> None:
    article.write_text("One.\n\n- a\n\n- b\n", encoding="utf-8")
    server.answer = lambda question, _: (200, {}, question.rpartition("only.\n\n")[2].upper())
    status, document = ask("--target-language", "Dutch", "--seed", "5")
    assert (status, document["text"]) == (0, "ONE.\n\n- A\n\n- B\n")
    (message,) = server.bodies[0]["messages"]
    assert message["role"] == "user" and "from English to Dutch" in message["content"]
    wanted = {"max_tokens": 1000, "temperature": 0.7, "top_k": 50, "top_p": 0.9, "seed": 5}
    assert {name: server.bodies[0][name] for name in wanted} == wanted
    assert not any(piece.get("cut") for piece in document["pieces"])


def test_a_model_without_a_chat_template_continues_a_text(
    ask: Callable[..., Any], server: FakeServer, article: Path
) -> None:
    article.write_text("One.\n\nTwo.\n\nThree.\n", encoding="utf-8")

    def answer(prompt: str, _: int) -> Answer:
        if not prompt.endswith("German:"):
            return 422, {"type": "template_error"}, "Template error: template not found"
        return 200, {}, translated(prompt)

    server.answer = answer
    status, document = ask("--concurrency", "1")
    assert (status, document["text"]) == (0, "ONE.\n\nTWO.\n\nTHREE.\n")
    assert ["messages" in body for body in server.bodies] == [True, False, False, False], "it is asked once"


def test_pieces_that_were_cut_are_reported(
    ask: Callable[..., Any], server: FakeServer, article: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    article.write_text("One.\n\nTwo.\n", encoding="utf-8")
    server.finish_reason = "length"
    server.answer = lambda question, _: (200, {}, "half of")
    status, document = ask("--max-new-tokens", "2")
    assert status == 0 and [piece["cut"] for piece in document["pieces"]] == [True, True]
    assert "2 pieces were cut at 2 tokens: 0, 1." in " ".join(capsys.readouterr().err.split())


def test_article_is_translated_in_order(run: Callable[..., Any], server: FakeServer, article: Path) -> None:
    status, document = run()
    assert status == 0
    original = article.read_text(encoding="utf-8")
    assert "".join(piece["source"] + piece["separator"] for piece in document["pieces"]) == original
    assert [piece["index"] for piece in document["pieces"]] == list(range(len(document["pieces"])))
    for piece in document["pieces"]:
        assert piece["translation"] == (piece["source"] if piece["kind"] == "code" else piece["source"].upper())
    assert document["text"] == "".join(piece["translation"] + piece["separator"] for piece in document["pieces"])
    assert sorted(path.name for path in article.parent.iterdir()) == ["article.json", "article.md"]
    parameters = server.bodies[0]["parameters"]
    wanted = {"max_new_tokens": 1000, "stop": ["\n\n"], "temperature": 0.7, "top_k": 50, "top_p": 0.9}
    assert {name: parameters[name] for name in wanted} == wanted


def test_equal_paragraphs_are_sent_once_and_braces_are_harmless(
    run: Callable[..., Any], server: FakeServer, article: Path
) -> None:
    same = "Same {text} {target_language}."
    article.write_text(f"{same}\n\n{same}\n\n- a\n\n- b\n", encoding="utf-8")
    _, document = run("--temperature", "0", "--seed", "3")
    sent = {source(body["inputs"]): body["parameters"] for body in server.bodies}
    assert set(sent) == {same, "- a\n\n- b"} and len(server.bodies) == 2
    assert sent["- a\n\n- b"]["stop"] == []  # the blank line of the list is no end
    assert (sent["- a\n\n- b"]["temperature"], sent["- a\n\n- b"]["seed"]) == (0, 3)
    assert [piece["translation"][:4] for piece in document["pieces"]] == ["SAME", "SAME", "- A\n"]


def test_concurrency_is_used_and_capped(run: Callable[..., Any], server: FakeServer, article: Path) -> None:
    article.write_text("\n\n".join(f"Number {number}." for number in range(32)), encoding="utf-8")
    eight_at_once = threading.Barrier(8, timeout=20)

    def answer(prompt: str, _: int) -> Answer:
        eight_at_once.wait()  # breaks, and fails the request, if eight never come together
        return 200, {}, translated(prompt)

    server.answer = answer
    assert run("--concurrency", "8", "--retries", "0")[0] == 0
    assert server.most_active == 8


def test_128_at_once_by_default(run: Callable[..., Any], server: FakeServer, article: Path) -> None:
    article.write_text("\n\n".join(f"Number {number}." for number in range(140)), encoding="utf-8")
    all_at_once = threading.Barrier(128, timeout=20)

    def answer(prompt: str, number: int) -> Answer:
        if number <= 128:
            all_at_once.wait()
        return 200, {}, translated(prompt)

    server.answer = answer
    assert run("--retries", "0")[0] == 0
    assert server.most_active == 128


def test_overload_is_waited_out_however_often(run: Callable[..., Any], server: FakeServer, article: Path) -> None:
    article.write_text("One.\n\nTwo.\n", encoding="utf-8")
    times: list[float] = []

    def answer(prompt: str, number: int) -> Answer:
        times.append(time.monotonic())
        if number <= 6:
            return 429, {"retry-after": "0.1", "type": "overloaded"}, "Model is overloaded"
        return 200, {}, translated(prompt)

    server.answer = answer
    status, document = run("--retries", "0", "--concurrency", "1")
    assert (status, document["text"]) == (0, "ONE.\n\nTWO.\n")
    assert all(later - earlier >= 0.1 for earlier, later in pairwise(times[:7]))


def test_overload_holds_back_the_other_workers(translate: ModuleType) -> None:
    moments: dict[str, float] = {}
    other_started = asyncio.Event()

    class Client:
        async def generate(self, prompt: str) -> Any:
            now = asyncio.get_running_loop().time()
            if prompt == "job 0" and "refusal" not in moments:
                await other_started.wait()
                moments["refusal"] = now
                raise translate.errors.OverloadedError("Model is overloaded", headers={"retry-after": "0.2"})
            moments[prompt] = now
            other_started.set()
            await asyncio.sleep(0.02)  # ends after the refusal: its worker takes the third job during the wait
            return SimpleNamespace(generated_text="ok", details=SimpleNamespace(finish_reason="length"))

    jobs = [translate.Job(f"job {number}", {}) for number in range(3)]
    asyncio.run(translate.Translator(Client(), 2, 0).run(jobs, lambda job: None))
    assert [job.result["translation"] for job in jobs] == ["ok"] * 3
    assert min(moments["job 0"], moments["job 2"]) - moments["refusal"] >= 0.2


@pytest.mark.parametrize(
    ("status", "error_type", "message", "expected_requests", "expected_error"),
    [
        (424, "generation", "boom", 3, None),
        (502, "", "bad gateway", 3, None),
        (503, "shutting_down", "later", 3, None),
        (422, "validation", "too long", 1, "ValidationError: too long"),
        (401, "unauthorized", "no key", 1, "AuthenticationError: no key"),
    ],
)
def test_only_failures_of_the_moment_are_tried_again(
    translate: ModuleType,
    run: Callable[..., Any],
    server: FakeServer,
    article: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    error_type: str,
    message: str,
    expected_requests: int,
    expected_error: str | None,
) -> None:
    monkeypatch.setattr(translate, "backoff", lambda attempt: 0.001)
    article.write_text("One.\n", encoding="utf-8")
    server.answer = lambda prompt, number: (
        (status, {"type": error_type}, message) if number < 3 else (200, {}, translated(prompt))
    )
    code, document = run()
    assert len(server.bodies) == expected_requests
    assert (code, document["pieces"][0].get("error")) == (int(expected_error is not None), expected_error)
    assert document["text"] == ("One.\n" if expected_error else "ONE.\n")  # what failed stays as it was


def test_empty_translation_is_tried_again_then_reported(
    translate: ModuleType, run: Callable[..., Any], server: FakeServer, article: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translate, "backoff", lambda attempt: 0.001)
    article.write_text("One.\n", encoding="utf-8")
    server.answer = lambda prompt, number: (200, {}, "\n\n")
    code, document = run("--retries", "2")
    assert (code, len(server.bodies)) == (1, 3)
    assert "empty" in document["pieces"][0]["error"]


def test_backoff_grows_to_a_limit(translate: ModuleType) -> None:
    assert 0.25 <= translate.backoff(0) <= 0.375
    assert 16 <= translate.backoff(50) <= 24


def test_interrupted_run_goes_on_with_what_is_missing(
    translate: ModuleType, run: Callable[..., Any], server: FakeServer, article: Path
) -> None:
    expected = [
        piece.text for piece in translate.split(article.read_text(encoding="utf-8"), 2000) if piece.translatable
    ]
    release = threading.Event()

    def answer(prompt: str, number: int) -> Answer:
        if number > 10:
            release.wait(30)
        return 200, {}, translated(prompt)

    server.answer = answer
    command = [sys.executable, SCRIPT, str(article), "--base-url", server.url, "--completion"]
    environment = {"PYTHONPATH": CLIENT, "PATH": ""}
    process = subprocess.Popen([*command, "--concurrency", "16"], stderr=subprocess.PIPE, text=True, env=environment)
    journal = article.with_name("article.json.journal")
    try:
        deadline = time.monotonic() + 30
        while not (journal.exists() and journal.read_bytes().count(b"\n") == 10):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=30)
    finally:
        process.kill()
        release.set()
    assert process.returncode == 130
    assert "Interrupted" in messages
    assert not article.with_suffix(".json").exists()
    done = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    with journal.open("ab") as file:
        file.write(b'{"key": "cut off in the mid')

    server.bodies.clear()
    status, document = run()
    assert status == 0
    kept = {entry["translation"] for entry in done}
    assert sorted(source(body["inputs"]) for body in server.bodies) == sorted(
        text for text in expected if text.upper() not in kept
    )
    assert len(server.bodies) == len(expected) - 10
    for piece in document["pieces"]:
        assert piece["translation"] == (piece["source"] if piece["kind"] == "code" else piece["source"].upper())
    assert not journal.exists()


def test_finished_output_is_reused_until_something_changes(
    run: Callable[..., Any], server: FakeServer, article: Path
) -> None:
    article.write_text("One.\n\nTwo.\n", encoding="utf-8")
    _, first = run()
    assert run() == (0, first) and len(server.bodies) == 2
    article.write_text("One.\n\nTwo!\n", encoding="utf-8")
    assert run()[1]["text"] == "ONE.\n\nTWO!\n" and len(server.bodies) == 3
    run("--temperature", "0.5")
    assert len(server.bodies) == 5
    run("--temperature", "0.5", "--fresh")
    assert len(server.bodies) == 7


def test_failed_pieces_are_tried_again_by_the_next_run(
    run: Callable[..., Any], server: FakeServer, article: Path
) -> None:
    article.write_text("One.\n\nTwo.\n", encoding="utf-8")
    server.answer = lambda prompt, _: (
        (422, {"type": "validation"}, "no") if "Two" in prompt else (200, {}, translated(prompt))
    )
    assert run()[0] == 1
    server.answer = lambda prompt, _: (200, {}, translated(prompt))
    status, document = run()
    assert (status, document["text"], len(server.bodies)) == (0, "ONE.\n\nTWO.\n", 3)


def test_foreign_files_are_not_overwritten(
    translate: ModuleType, server: FakeServer, article: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = article.with_suffix(".json")
    output.write_text('["mine"]', encoding="utf-8")
    assert translate.main([str(article), "--base-url", server.url]) == 1
    assert "choose another --output" in capsys.readouterr().err.replace("\n", " ")
    assert output.read_text(encoding="utf-8") == '["mine"]' and server.bodies == []
    with pytest.raises(SystemExit):
        translate.main([str(article), "--output", str(article)])
    assert translate.main([str(article.with_name("missing.md"))]) == 1


def test_prompt_template(run: Callable[..., Any], translate: ModuleType, server: FakeServer, article: Path) -> None:
    article.write_text("One.\n", encoding="utf-8")
    template = article.with_name("template.txt")
    template.write_text("{source_language}>{target_language}: {text}", encoding="utf-8")
    server.answer = lambda prompt, _: (200, {}, prompt)
    _, document = run("--prompt-template", f"@{template}", "--target-language", "Dutch")
    assert document["text"] == "English>Dutch: One.\n"
    with pytest.raises(SystemExit):
        run("--prompt-template", "no place for it")


def test_translation_models_get_the_text_and_codes(run: Callable[..., Any], server: FakeServer, article: Path) -> None:
    article.write_text("One.\n", encoding="utf-8")
    server.answer = lambda prompt, _: (200, {}, f"<{prompt}>")
    _, document = run("--source-code", "en", "--target-code", "de", "--temperature", "0")
    assert document["text"] == "<One.>\n"
    parameters = server.bodies[-1]["parameters"]
    assert (parameters["src_lang"], parameters["tgt_lang"], parameters["stop"]) == ("en", "de", [])


def test_help_names_every_setting(translate: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        translate.main(["--help"])
    shown = capsys.readouterr().out
    assert exit_.value.code == 0
    for text in ("--base-url", "--prompt-template", "--concurrency", "128", "--output", "1000", "0.7", "50", "0.9"):
        assert text in shown
