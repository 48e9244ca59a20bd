"""Files from strangers: what is no file, no JSON, or no text for a terminal."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tgi.errors import ModelError
from tgi.untrusted import check_file, printable, read_json

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 269060552\n" % (b"0" * 64)


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        check_file(path)
    with pytest.raises(ModelError) as again:
        read_json(path)
    assert str(again.value) == str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    """Opening a named pipe would wait for ever, reading a device might never end."""
    os.mkfifo(tmp_path / "pipe")
    assert "is a named pipe, not a regular file" in refusal(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    assert "is a device" in refusal(tmp_path / "zero")
    assert "is a directory" in refusal(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert "is a socket" in refusal(tmp_path / "socket")
    assert "No such file" in refusal(tmp_path / "absent")
    (tmp_path / "around").symlink_to("around")
    assert "cannot be read" in refusal(tmp_path / "around")
    (tmp_path / "a\x1b[31m\nb").symlink_to("absent")
    assert r"a\x1b[31m\nb cannot be read" in refusal(tmp_path / "a\x1b[31m\nb")


def test_a_pointer_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(POINTER)
    assert "is a Git LFS pointer" in refusal(tmp_path / "x") and "git lfs pull" in refusal(tmp_path / "x")
    (tmp_path / "x").write_bytes(POINTER + bytes(2000))
    check_file(tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"1" * 5000, "not valid JSON"),
        (b'{"a": "\x00"}', "not valid JSON"),
    ],
)
def test_what_is_no_json(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ModelError, match=says) as caught:
        read_json(tmp_path / "x.json")
    assert str(caught.value).isprintable()


def test_json(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": [1, "\u00e9"]}')
    assert read_json(tmp_path / "x.json") == {"a": [1, "\u00e9"]}


def test_names_for_messages() -> None:
    assert printable("model.norm.w\u00e9ight") == "model.norm.w\u00e9ight"
    assert printable("a\x1b[2J\r\nb\x07\x85\u2028\ud800") == r"a\x1b[2J\r\nb\x07\x85\u2028\ud800"
    assert printable("x" * 300) == "x" * 200 + "..."
    assert printable(["a\n"], 3) == "['a..."
