"""The tokens of a text with their places in it, held in 12 bytes each.

Owns the way from the tokenizer's character offsets to TGI's byte offsets. A text of a megabyte can have a
million tokens, so objects are made only of those that are looked at. Made by `tokenizer`, read by `api`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from tokenizers import Encoding

from tgi.serving.types import TokenSpan


class TokenSpans(Sequence[TokenSpan]):
    """All tokens of one text, in order; a token without source text has "" and 0, 0."""

    def __init__(self, text: str, ids: Sequence[int], offsets: Iterable[tuple[int, int]]) -> None:
        """offsets: of each token in bytes of UTF-8, from the first on and up to the one after the last."""
        self._data = text.encode()
        self.ids = array("I", ids)
        self.starts = array("I")
        self.stops = array("I")
        for start, stop in offsets:
            self.starts.append(start)
            self.stops.append(stop)

    @classmethod
    def of_arrays(cls, text: str, ids: array[int], starts: array[int], stops: array[int]) -> TokenSpans:
        """From what `ids`, `starts` and `stops` of others are, of type "I"."""
        spans = cls(text, (), ())
        spans.ids, spans.starts, spans.stops = ids, starts, stops
        return spans

    @classmethod
    def of(cls, text: str, encoding: Encoding) -> TokenSpans:
        """The tokens of an encoded text."""
        # One by one: the library's list of all offsets holds up the other threads while it is made.
        offsets = (encoding.token_to_chars(number) or (0, 0) for number in range(len(encoding.ids)))
        return cls(text, encoding.ids, offsets if text.isascii() else _in_bytes(text, offsets))

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> TokenSpan: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenSpan]: ...
    def __getitem__(self, index: int | slice) -> TokenSpan | list[TokenSpan]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        start, stop = self.starts[index], self.stops[index]
        if stop <= start:
            return TokenSpan(self.ids[index], "", 0, 0)
        return TokenSpan(self.ids[index], self._data[start:stop].decode(), start, stop)


def _in_bytes(text: str, offsets: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Offsets in characters as offsets in bytes of UTF-8, counted from the token before."""
    at, byte = 0, 0
    for start, stop in offsets:
        if start >= at:
            byte += len(text[at:start].encode())
        else:  # several tokens share a character
            byte -= len(text[start:at].encode())
        at = start
        yield byte, byte + len(text[start:stop].encode())
