"""How the translation example splits a text: nothing lost, within the limit, at sensible boundaries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples.translate_server import load, sample_article


def split(*arguments: Any) -> list[Any]:
    return load("split_text").split(*arguments)


LINES = st.sampled_from(
    ["", " ", "# Heading", "- item", "  more", "1. one", "2) two", "```", "~~~~", "Word", "A b. C d! E?", "日本。語"]
)
DOCUMENTS = st.lists(LINES | st.text(max_size=30), max_size=30).map("\n".join)


@given(text=DOCUMENTS, limit=st.integers(1, 60), merge_below=st.integers(0, 60))
def test_pieces_restore_the_text_and_obey_the_limit(text: str, limit: int, merge_below: int) -> None:
    pieces = split(text, limit, merge_below)
    assert "".join(piece.text + piece.separator for piece in pieces) == text
    for piece in pieces:
        assert piece.separator.strip() == "" and piece.text == piece.text.rstrip()
        assert piece.kind == "code" or len(piece.text) <= limit
        assert (piece.kind == "blank") == (piece.text == "")


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("A.\n\nB.\n", 99, [("prose", "A."), ("prose", "B.")]),
        ("# T\nText\nmore", 99, [("heading", "# T"), ("prose", "Text\nmore")]),
        ("T\n```\na\n\nb\n```\nU", 3, [("prose", "T"), ("code", "```\na\n\nb\n```"), ("prose", "U")]),
        ("````\n```\n````\n\nB", 99, [("code", "````\n```\n````"), ("prose", "B")]),
        ("```\nnever closed\n\nB", 99, [("code", "```\nnever closed\n\nB")]),
        ("Buy:\n- a\n  b\n\n- c\n\nEnd", 99, [("prose", "Buy:"), ("list", "- a\n  b\n\n- c"), ("prose", "End")]),
        ("- aa\n- bb\n- cc", 9, [("list", "- aa\n- bb"), ("list", "- cc")]),
        ("It began in\n1999. Then", 99, [("prose", "It began in\n1999. Then")]),
        ("One is. Two is! Three", 15, [("prose", "One is. Two is!"), ("prose", "Three")]),
        ("Dr. No met J. Doe. He ran.", 20, [("prose", "Dr. No met J. Doe."), ("prose", "He ran.")]),
        ("aaa bbb ccc", 7, [("prose", "aaa bbb"), ("prose", "ccc")]),
        ("aaaaaaa", 3, [("prose", "aaa"), ("prose", "aaa"), ("prose", "a")]),
        ("\n\nA", 99, [("blank", ""), ("prose", "A")]),
        ("", 99, []),
    ],
)
def test_boundaries(text: str, limit: int, expected: list[tuple[str, str]]) -> None:
    assert [(piece.kind, piece.text) for piece in split(text, limit)] == expected


def test_merging_joins_paragraphs_only() -> None:
    pieces = split("A.\n\nB.\n\nC.\n\n# H\n\nD.\n\nE.", 99, 6)
    assert [piece.text for piece in pieces] == ["A.\n\nB.", "C.", "# H", "D.\n\nE."]


def test_sample_article_has_the_promised_size() -> None:
    pieces = split(sample_article(), 2000)
    assert 12_500 < sum(len(piece.text + piece.separator) for piece in pieces) / 4 < 13_500
    assert {piece.kind for piece in pieces} == {"heading", "prose", "list", "code"}


def test_limit_must_leave_room() -> None:
    with pytest.raises(ValueError, match="limit"):
        split("text", 0)
