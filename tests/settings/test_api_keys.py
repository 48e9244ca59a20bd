"""API keys from flags and a file: which there are, what is refused, and that none gets into the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgi.commands.cli import launcher_main
from tgi.errors import ArgumentError
from tgi.settings.api_keys import with_keys_of_file
from tgi.settings.parse import parse


def keys(words: list[str], environment: dict[str, str] | None = None) -> tuple[str, ...]:
    return with_keys_of_file(parse(words, environment or {})).config.api_key


def test_all_keys_each_once(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\n one \n\ntwo\r\nschlüssel\n")
    assert keys(["--api-key", "zero", "--api-key", "two", "--api-key-file", str(file)]) == (
        "zero", "two", "one", "schlüssel",
    )  # fmt: skip
    assert keys([], {"TGI_API_KEY_FILE": str(file)}) == ("one", "two", "schlüssel")
    assert keys([], {"API_KEY": "a,b"}) == ("a,b",), "a key may have a comma"
    assert keys([]) == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such"),
        (b"", "no key in it"),
        (b"# a\n\n", "no key in it"),
        (b"\xff\xfe", "text"),
    ],
)
def test_files_that_say_nothing(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ArgumentError, match=said):
        keys(["--api-key-file", str(file)])


@pytest.mark.parametrize("key", ["", " "])
def test_an_empty_key_is_refused(key: str) -> None:
    with pytest.raises(ArgumentError, match="cannot be empty"):
        keys(["--api-key", key])


def test_no_key_is_logged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys"
    file.write_text("secret-of-the-file\n")
    words = ["--api-key", "secret-of-the-line", "--api-key-file", str(file), "--model-id", str(tmp_path / "none")]
    assert launcher_main([*words, "--hostname", "secret-of-the-file"]) != 0
    said = "".join(capfd.readouterr())
    assert "Args" in said and "secret-of" not in said
