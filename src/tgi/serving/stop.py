"""Stop strings, found anywhere in a growing text, also across tokens.

Owns the matching and what is held back. Does not own finish reasons nor token lists. Called by
`generation`, once for each sample.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Watches a text that arrives in pieces; the result does not depend on how it was cut.

    The match that ends first wins; of two that end together the longer one.
    """

    def __init__(self, stops: Sequence[str], keep: bool) -> None:
        """`keep` True (TGI): the stop string stays in the text and nothing is held back.
        False (OpenAI): it is left out, so what may be its beginning is held back."""
        self._patterns = [_Pattern(stop) for stop in stops]
        self._keep = keep
        self._held = ""
        self.matched: str | None = None
        """The stop string found; after that nothing more is shown."""

    def feed(self, text: str) -> str:
        """Take the next piece of text and give what may be shown now."""
        if self.matched is not None:
            return ""
        if not self._patterns:
            return text
        for position, character in enumerate(text):
            if found := self._advance(character):
                self.matched = found
                shown = self._held + text[: position + 1]
                self._held = ""
                return shown if self._keep else shown[: len(shown) - len(found)]
        if self._keep:
            return text
        text = self._held + text
        shown = len(text) - max(pattern.matched for pattern in self._patterns)
        self._held = text[shown:]
        return text[:shown]

    def flush(self) -> str:
        """The text has ended without a match: give what was held back."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> str | None:
        found: str | None = None
        for pattern in self._patterns:
            if pattern.advance(character) and (found is None or len(pattern.text) > len(found)):
                found = pattern.text
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
