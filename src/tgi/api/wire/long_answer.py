"""Answers with long lists, written some items at a time.

Owns how a list of an answer is kept out of it until it is written. The hundred thousand alternatives of a
large answer with log-probabilities would hold the interpreter for a second, if they were made and encoded at
once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

ITEMS_AT_ONCE = 64
"""Tokens, each with up to 20 alternatives: some milliseconds."""
FEW_ITEMS = 1_024
"""An answer with no more is written in one go."""
_MARK = b"\0"
"""Around the number of a list, in its place: JSON never holds this byte."""

Item = TypeVar("Item")
encode = msgspec.json.Encoder().encode


class LongLists:
    """The lists of one answer."""

    def __init__(self, items: int) -> None:
        """`items`: how many there are in all lists together."""
        self._few = items <= FEW_ITEMS
        self._lists: list[tuple[Callable[[Any], Any], Sequence[Any]]] = []

    def array(self, make: Callable[[Item], Any], items: Sequence[Item]) -> Any:
        """Stands for the list of `make(item)`, in what `written` is given."""
        if self._few:
            return [make(item) for item in items]
        self._lists.append((make, items))
        return msgspec.Raw(b"%b%d%b" % (_MARK, len(self._lists) - 1, _MARK))

    def written(self, answer: Any) -> list[bytes]:
        """The answer as JSON, in pieces."""
        parts = encode(answer).split(_MARK)
        pieces: list[bytes] = []
        for place, part in enumerate(parts):
            if place % 2:
                pieces += self._items(*self._lists[int(part)])
            else:
                pieces.append(part)
        return pieces

    @staticmethod
    def _items(make: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[bytes]:
        yield b"["
        for begin in range(0, len(items), ITEMS_AT_ONCE):
            some = encode([make(item) for item in items[begin : begin + ITEMS_AT_ONCE]])
            yield (b"," if begin else b"") + some[1:-1]
        yield b"]"


def write(answer: Callable[[LongLists], Any], items: int) -> list[bytes]:
    """The JSON of an answer that is made with its lists; see `LongLists`."""
    lists = LongLists(items)
    return lists.written(answer(lists))
