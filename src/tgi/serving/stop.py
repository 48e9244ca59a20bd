"""Stop strings, found anywhere in a growing text, also across tokens.

Owns the matching and what is held back. Does not own finish reasons nor token lists. Called by
`generation`, once for each sample.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


class StopStrings:
    """Watches a text that arrives in pieces; the result does not depend on how it was cut.

    The match that ends first wins; of two that end together the longer one. A stop string that names a
    special token is sought in the text with all special tokens, any other in the text without them.
    """

    def __init__(self, stops: Sequence[str], keep: bool, special: Collection[str] = ()) -> None:
        """`keep` True (TGI): the stop string stays in the text and nothing is held back.
        False (OpenAI): it is left out, so what may be its beginning is held back.
        `special`: the texts of the special tokens."""
        self._patterns = [_Pattern(stop) for stop in stops]
        self._naming = [pattern for pattern in self._patterns if any(text in pattern.text for text in special)]
        self._keep = keep
        self._held = ""
        self._position = 0
        """Characters so far, those of special tokens too."""
        self._hidden: list[tuple[int, int]] = []
        """Where special tokens were, by position."""
        self.matched: str | None = None
        """The stop string found; after that nothing more is shown."""

    def feed(self, text: str) -> str:
        """Take the next piece of text and give what may be shown now."""
        if self.matched is not None:
            return ""
        if not self._patterns:
            return text
        for number, character in enumerate(text, 1):
            self._position += 1
            if found := _advance(self._patterns, character):
                return self._end(found, self._held + text[:number])
        if self._keep:
            return text
        text = self._held + text
        shown = len(text) - max(self._visible(pattern, pattern.matched) for pattern in self._patterns)
        self._held = text[shown:]
        return text[:shown]

    def feed_special(self, text: str) -> str:
        """As `feed` for a special token, which itself is not shown."""
        if self.matched is not None or not self._naming:
            return ""
        self._hidden.append((self._position, self._position + len(text)))
        for character in text:
            self._position += 1
            if found := _advance(self._naming, character):
                return self._end(found, self._held)
        return self.feed("")

    def flush(self) -> str:
        """The text has ended without a match: give what was held back."""
        held, self._held = self._held, ""
        return held

    def _end(self, found: _Pattern, text: str) -> str:
        self.matched = found.text
        self._held = ""
        return text if self._keep else text[: len(text) - self._visible(found, len(found.text))]

    def _visible(self, pattern: _Pattern, length: int) -> int:
        """How many of the last `length` characters that a pattern matched are not of special tokens."""
        if pattern not in self._naming:
            return length
        begin = self._position - length
        for start, stop in reversed(self._hidden):
            if stop <= begin:
                break
            length -= min(stop, self._position) - max(start, begin)
        return length


def _advance(patterns: list[_Pattern], character: str) -> _Pattern | None:
    """Feed every pattern; the longest of those that end here."""
    found: _Pattern | None = None
    for pattern in patterns:
        if pattern.advance(character) and (found is None or len(pattern.text) > len(found.text)):
            found = pattern
    return found


class _Pattern:
    """Knuth-Morris-Pratt for one stop string, its failure table built only as far as matches get.

    So a very long stop string costs nothing until the text begins to resemble it.
    """

    __slots__ = ("_fallback", "matched", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched = 0
        """Length of the longest prefix of `text` that the text so far ends with."""
        self._fallback = [0, 0]  # [k]: longest proper border of text[:k]

    def advance(self, character: str) -> bool:
        """Take one character; True when the stop string ends with it."""
        text, fallback = self.text, self._fallback
        while self.matched and text[self.matched] != character:
            self.matched = fallback[self.matched]
        if text[self.matched] != character:
            return False
        self.matched += 1
        if self.matched == len(text):
            return True
        if self.matched == len(fallback):
            border = fallback[-1]
            while border and text[border] != character:
                border = fallback[border]
            fallback.append(border + (text[border] == character))
        return False
