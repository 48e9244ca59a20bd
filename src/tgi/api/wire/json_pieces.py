"""JSON of many values read in pieces, and what was made of it taken apart in pieces.

Owns where a body is cut. One call of the decoder, and the end of one large list, hold the interpreter for as
long as they last, also in a thread: for the hundred thousand values of a large body that is long enough to be
noticed by everybody who is served at the time. Knows nothing of what a body means.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import msgspec
from pydantic import BaseModel

PIECE_BYTES = 16_384
"""Of JSON in one call of the decoder, which takes at most a millisecond."""
FEW_VALUES = 10_000
"""A body that has no more commas and brackets than that is decoded in one go."""
ITEMS_AT_ONCE = 1_000
"""Of a list that is taken apart."""
FEW_ITEMS = 100
"""A list or object that has no more is short."""

_STRUCTURE = re.compile(rb'["\[\]{},]')
_STRING_END = re.compile(rb'"|\\.', re.DOTALL)
_PLACE = re.compile(r"\(byte (\d+)\)")
_PATH = re.compile(r" - at `[^`]*`$")
_SPACE = b" \t\n\r"
_decode = msgspec.json.decode


def decode_in_pieces(body: bytes) -> Any:
    """What `msgspec.json.decode` gives, and the errors that it raises."""
    if sum(map(body.count, (b",", b"[", b"{"))) <= FEW_VALUES:
        return _decode(body)
    return _Reader(body).read()


class _Level:
    """A list or object that is open."""

    def __init__(self, place: int, is_list: bool) -> None:
        self.place = place
        self.is_list = is_list
        self.start = self.item = place + 1
        """Where what is not decoded yet begins, and where its last item does."""
        self.value: Any = None
        """What was decoded of it; None: nothing."""
        self.complete = False
        """Its last item was decoded by itself: a comma or the end must follow."""

    def unfinished(self, place: int) -> msgspec.DecodeError:
        return _malformed("expected ',' or ']'" if self.is_list else "expected ',' or '}'", place)

    def add(self, value: Any) -> None:
        """`value`: a list or object of further items."""
        if self.value is None:
            self.value = value
        elif self.is_list:
            self.value += value
        else:
            self.value.update(value)


class _Reader:
    """One pass over a body: lists and objects that are long get their items some at a time."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._open: list[_Level] = []

    def read(self) -> Any:
        body, at, deepest = self._body, 0, sys.getrecursionlimit()
        while (match := _STRUCTURE.search(body, at)) is not None:
            place, at = match.start(), match.end()
            character = match[0]
            if character == b'"':
                at = self._end_of_string(at)
            elif character == b",":
                if not self._open:
                    break
                self._comma(self._open[-1], place)
            elif character in b"[{":
                if not self._open and body[:place].strip(_SPACE):
                    break
                if len(self._open) >= deepest:
                    raise RecursionError
                self._open.append(_Level(place, character == b"["))
            else:
                if not self._open:
                    break
                if self._open[-1].is_list != (character == b"]"):
                    raise self._open[-1].unfinished(place)
                self._close(self._open.pop(), place)
                if not self._open:
                    return self._whole(at)
        if self._open:
            raise msgspec.DecodeError("Input data was truncated")
        return _decode(body)  # no list and no object, or not at its beginning: soon read or refused

    def _end_of_string(self, at: int) -> int:
        while (match := _STRING_END.search(self._body, at)) is not None:
            at = match.end()
            if match[0] == b'"':
                return at
        return len(self._body)

    def _comma(self, level: _Level, place: int) -> None:
        if level.complete:
            self._expect_space(level, place)
            level.complete = False
            level.start = place + 1
        elif place - level.start >= PIECE_BYTES:
            self._take(level, place)
        level.item = place + 1

    def _close(self, level: _Level, place: int) -> None:
        """The end of a list or object. A short one is decoded together with what it is in."""
        if self._open and level.value is None and place - level.start < PIECE_BYTES:
            return
        if level.complete:
            self._expect_space(level, place)
        else:
            self._take(level, place)
        if self._open:
            self._put(self._open[-1], level, place)
        else:
            self._value = level.value

    def _whole(self, end: int) -> Any:
        rest = self._body[end:].lstrip(_SPACE)
        if rest:
            raise _malformed("trailing characters", len(self._body) - len(rest) + 1)  # as the decoder counts
        return self._value

    def _take(self, level: _Level, end: int) -> None:
        """Decode what `level` has from its start to the comma or bracket at `end`."""
        text = self._body[level.start : end]
        closing = self._body[end : end + 1] != b","
        if not text.strip(_SPACE) and not (closing and level.value is None):
            container = "array" if level.is_list else "object"
            raise _malformed(f"trailing comma in {container}" if closing else "invalid character", end)
        level.add(self._decode(text, level.start, level.is_list))
        level.start = end + 1

    def _put(self, level: _Level, inner: _Level, end: int) -> None:
        """A long value, which ends at `end`, becomes an item of `level`; those before it are decoded first."""
        if level.complete:
            raise level.unfinished(inner.place)
        if level.item > level.start:
            self._take(level, level.item - 1)
        if level.is_list:
            if self._body[level.item : inner.place].strip(_SPACE):
                raise _malformed("invalid character", level.item)
            level.add([inner.value])
        else:
            name = self._body[level.item : inner.place] + b"null"
            level.add(dict.fromkeys(self._decode(name, level.item, is_list=False), inner.value))
        level.start = end + 1
        level.complete = True

    def _decode(self, text: bytes, start: int, is_list: bool) -> Any:
        try:
            return _decode(b"[" + text + b"]" if is_list else b"{" + text + b"}")
        except msgspec.DecodeError as error:
            sentence = _PATH.sub("", str(error))  # its indices are those of the piece
            raise msgspec.DecodeError(_PLACE.sub(lambda match: _at(int(match[1]) - 1 + start), sentence)) from None

    def _expect_space(self, level: _Level, end: int) -> None:
        text = self._body[level.start : end].lstrip(_SPACE)
        if text:
            raise level.unfinished(end - len(text))


def _malformed(what: str, place: int) -> msgspec.DecodeError:
    return msgspec.DecodeError(f"JSON is malformed: {what} {_at(place)}")


def _at(place: int) -> str:
    return f"(byte {place})"


def take_apart(value: Any, levels: int = 8) -> None:
    """End a list, object or model some items at a time; nobody may use it any more.

    Long ones are looked for in at most `levels` levels of short ones.
    """
    if isinstance(value, BaseModel):
        value = vars(value)
    if isinstance(value, (list, dict)) and len(value) <= FEW_ITEMS:
        if levels:
            for item in value.values() if isinstance(value, dict) else value:
                take_apart(item, levels - 1)
    elif isinstance(value, list):
        while value:
            del value[-ITEMS_AT_ONCE:]
    elif isinstance(value, dict):
        while value:
            value.popitem()
