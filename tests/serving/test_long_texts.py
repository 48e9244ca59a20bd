"""Very long texts are tokenised in another process, with the same result, and with that process gone just as well."""

from __future__ import annotations

import logging
import os
import random
import time
from pathlib import Path

import pytest

from tests import small_tokenizers as build
from tests.serving.test_template_helper import running
from tgi.serving import helper_process, long_texts
from tgi.serving.long_texts import LongTexts
from tgi.serving.tokenizer import Tokenizer
from tgi.serving.tokenizer_library import TokenizerError
from tgi.serving.tokenizer_threads import LONG_TEXT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return build.write_checkpoint(tmp_path / "model")


@pytest.fixture
def tokenizer(path: Path):
    tokenizer = Tokenizer.load(path)
    tokenizer.long_texts = LongTexts(path)
    yield tokenizer
    tokenizer.long_texts.close()


def pid_of(tokenizer: Tokenizer) -> int:
    assert tokenizer.long_texts is not None and tokenizer.long_texts.pid is not None
    return tokenizer.long_texts.pid


def long_text() -> str:
    return "".join(random.choices("ab cé☃\U0001f600\n<s>", k=LONG_TEXT + random.randrange(99)))


def test_the_same_as_here(tokenizer: Tokenizer, path: Path):
    here, text = Tokenizer.load(path), long_text()
    assert tokenizer.encode(text[:1000]) == here.encode(text[:1000])
    assert tokenizer.long_texts is not None and tokenizer.long_texts.pid is None
    for special in (True, False):
        assert tokenizer.encode(text, special) == here.encode(text, special)
        assert tokenizer.encode(text, special, truncate=7) == here.encode(text, special, truncate=7)
        there, ours = tokenizer.spans(text, special), here.spans(text, special)
        assert (there.ids, there.starts, there.stops) == (ours.ids, ours.starts, ours.stops)
        assert there[-5:] == ours[-5:]
    pid = pid_of(tokenizer)
    tokenizer.encode(text)
    assert pid_of(tokenizer) == pid


def test_a_text_that_cannot_be_encoded_fails_as_here(tokenizer: Tokenizer, path: Path):
    text = "a" * LONG_TEXT + "\ud800"
    with pytest.raises(TokenizerError) as here:
        Tokenizer.load(path).encode(text)
    with pytest.raises(TokenizerError) as there:
        tokenizer.encode(text)
    assert str(there.value) == str(here.value)


def test_a_killed_process_is_replaced(tokenizer: Tokenizer):
    text = "ab" * LONG_TEXT
    ids = tokenizer.encode(text)
    first = pid_of(tokenizer)
    os.kill(first, 9)
    while running(first):
        time.sleep(0.01)
    assert tokenizer.encode(text) == ids
    assert pid_of(tokenizer) != first


def test_without_the_process_it_is_done_here_and_said(tokenizer, monkeypatch, caplog):
    text = "ab" * LONG_TEXT
    monkeypatch.setattr(helper_process.children, "python", lambda module: ["/no/such/program"])
    with caplog.at_level(logging.WARNING):
        assert tokenizer.encode(text) == Tokenizer.encode(build.tokenizer(), text)
    assert "holds up other requests: the process that tokenises long texts cannot be started" in caplog.text


def test_a_text_that_takes_too_long_is_given_up(tokenizer, monkeypatch):
    tokenizer.encode("ab" * LONG_TEXT)
    pid = pid_of(tokenizer)
    monkeypatch.setattr(long_texts, "SECONDS", 0.01)
    with pytest.raises(TokenizerError, match=r"not tokenised after 0\.01 s"):
        tokenizer.encode("ab" * 900_000)
    assert not running(pid)
    monkeypatch.setattr(long_texts, "SECONDS", 60.0)
    assert tokenizer.encode("ab" * LONG_TEXT)


def test_the_process_ends_with_the_server(tokenizer: Tokenizer):
    tokenizer.encode("ab" * LONG_TEXT)
    pid = pid_of(tokenizer)
    assert tokenizer.long_texts is not None
    tokenizer.long_texts.close()
    assert not running(pid)
