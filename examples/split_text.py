"""Splits a long text into pieces that can be translated on their own, without losing a character.

Paragraphs end at blank lines. Headings, lists and fenced code are pieces of their own; what is too
long is cut at list items, then sentences, then words. Used by `translate.py`; does no input or output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["prose", "heading", "list", "code", "blank"]

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_HEADING = re.compile(r"#{1,6}\s")
_ITEM = re.compile(r"\s*(?:[-*+]|(\d{1,9})[.)])\s+\S")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*\s+|[。！？]+[」』”）]*\s*")
_ABBREVIATION = re.compile(r"(?:\b[A-Za-z]|\b(?:Dr|Mr|Mrs|Ms|Prof|St|No|Fig|vs|etc|cf|ca|bzw|usw|Nr))\.\s+$")


@dataclass(frozen=True, slots=True)
class Piece:
    """`text` has no white space at its end; `separator` is what followed it."""

    kind: Kind
    text: str
    separator: str

    @property
    def translatable(self) -> bool:
        return self.kind not in ("code", "blank")


def split(text: str, limit: int, merge_below: int = 0) -> list[Piece]:
    """The pieces of `text`; all `text + separator` together are `text` again.

    Args:
        text: Any text; Markdown is understood.
        limit: Most characters of a piece, above 0. Code is never cut.
        merge_below: Join neighbouring paragraphs up to so many characters; 0 joins none.
    """
    if limit < 1:
        raise ValueError("limit must be above 0")
    pieces = [_piece(kind, part) for kind, block in _blocks(text) for part in _cut_block(kind, block, limit)]
    return _merge(pieces, min(merge_below, limit))


def _piece(kind: Kind, part: str) -> Piece:
    text = part.rstrip()
    return Piece(kind if text else "blank", text, part[len(text) :])


def _blocks(text: str) -> Iterator[tuple[Kind, str]]:
    """Blocks with the blank lines that follow them."""
    kind: Kind = "blank"
    lines: list[str] = []
    fence = ""  # marker of the open code fence
    after_blank = False
    for line in _LINE.findall(text):
        if fence:
            lines.append(line)
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence, after_blank = "", True
            continue
        if not line.strip():
            lines.append(line)
            after_blank = True
            continue
        line_kind = _line_kind(line, kind, after_blank)
        if line_kind is not None:
            if lines:
                yield kind, "".join(lines)
            kind, lines = line_kind, []
        if kind == "code" and (match := _FENCE.match(line)):
            fence = match[1]
        lines.append(line)
        after_blank = kind == "heading"
    if lines:
        yield kind, "".join(lines)


def _line_kind(line: str, kind: Kind, after_blank: bool) -> Kind | None:
    """The kind of the block that `line` begins; None if it continues one of `kind`."""
    if _FENCE.match(line):
        return "code"
    if _HEADING.match(line):
        return "heading"
    item = _ITEM.match(line)
    if kind == "list" and (item or not after_blank or line[0] in " \t"):
        return None
    # As in CommonMark, a number in the middle of a paragraph begins a list only if it is 1.
    if item and (kind != "prose" or after_blank or item[1] in (None, "1")):
        return "list"
    return None if kind == "prose" and not after_blank else "prose"


def _cut_block(kind: Kind, block: str, limit: int) -> list[str]:
    if kind == "code":
        return [block]
    levels: list[Callable[[str, int], list[str]]] = [_sentences, _words, _characters]
    return _cut(block, limit, [_items, *levels] if kind == "list" else levels)


def _cut(text: str, limit: int, levels: list[Callable[[str, int], list[str]]]) -> list[str]:
    """`text` in parts of at most `limit` characters, cut at the first of `levels` that is fine enough."""
    if len(text.rstrip()) <= limit:
        return [text]
    parts: list[str] = []
    for unit in levels[0](text, limit):
        if parts and len((parts[-1] + unit).rstrip()) <= limit:
            parts[-1] += unit
        elif len(unit.rstrip()) <= limit:
            parts.append(unit)
        else:
            parts.extend(_cut(unit, limit, levels[1:]))
    return parts


def _items(text: str, _: int) -> list[str]:
    units: list[str] = []
    for line in _LINE.findall(text):
        if units and not _ITEM.match(line):
            units[-1] += line
        else:
            units.append(line)
    return units


def _sentences(text: str, _: int) -> list[str]:
    units: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text, start, match.end()):
            units.append(text[start : match.end()])
            start = match.end()
    return [*units, text[start:]] if start < len(text) else units


def _words(text: str, _: int) -> list[str]:
    return re.findall(r"\s*\S+\s*", text)


def _characters(text: str, limit: int) -> list[str]:
    return [text[start : start + limit] for start in range(0, len(text), limit)]


def _merge(pieces: list[Piece], below: int) -> list[Piece]:
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if last and last.kind == piece.kind == "prose":
            text = last.text + last.separator + piece.text
            if len(text) <= below:
                merged[-1] = Piece("prose", text, piece.separator)
                continue
        merged.append(piece)
    return merged
