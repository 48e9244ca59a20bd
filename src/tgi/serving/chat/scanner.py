"""Readers written as generators: a script asks for text as it needs it, however the text is cut.

Owns the buffer, what is held back, and the parts given so far. A script must decide by the text alone and never by
how much of it is there, so that its parts do not depend on the pieces. Knows no format.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeAlias

from tgi.serving.chat.parts import CallArguments, Part, Reasoning, Text

Script: TypeAlias = Generator[None, None, Any]
Emit: TypeAlias = Callable[[str], None]
SPACE = " \n\r\t"
PIECE = 1_024
"""Characters that a script gets at a time: what it takes is cut off, which copies the rest."""
_ESCAPED = {code: f"\\u{code:04x}" for code in range(0x20)} | {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}
"""Control characters, which models write into strings and JSON does not allow there."""


class Scanner:
    """The text of an answer from the place where a script is."""

    def __init__(self) -> None:
        self.text = ""
        """What has come and was not taken yet."""
        self.ended = False
        self.parts: list[Part] = []
        self.reasons = False
        self.called = False
        """A call has begun."""
        self.recorded: str | None = None
        """What was taken since `record`, to be text again if it does not become a call."""
        self._held = ""
        """Space at the end of what was emitted, which shows only if more follows."""

    # what is given

    def say(self, text: str) -> None:
        """Text of the answer; space at its end waits for more of it."""
        self._spaced(text, Text)

    def think(self, text: str) -> None:
        """Reasoning; space at its end waits for more of it."""
        self._spaced(text, Reasoning)

    def _spaced(self, text: str, kind: type[Text] | type[Reasoning]) -> None:
        text = self._held + text
        kept = text.rstrip(SPACE)
        self._held = text[len(kept) :]
        if kept:
            self.parts.append(kind(kept))

    def drop_space(self) -> None:
        """What follows is no text: space before it was only there to set it off."""
        self._held = ""

    def flush(self) -> None:
        """The answer has ended: space at its end is part of it, but not after calls."""
        if self._held and not self.called:
            self.parts.append(Text(self._held))
            self._held = ""

    def record(self, taken: str) -> None:
        """Keep what is taken from here on, and this, which already was."""
        self.recorded = taken

    def forget(self) -> None:
        self.recorded = None

    def give_back(self) -> str:
        """What was recorded."""
        taken, self.recorded = self.recorded or "", None
        return taken

    # what is taken

    def fill(self, length: int) -> Script:
        """Wait for `length` characters; True if there are that many."""
        while len(self.text) < length and not self.ended:
            yield
        return len(self.text) >= length

    def drop(self, length: int) -> str:
        """Take the next characters."""
        taken, self.text = self.text[:length], self.text[length:]
        if self.recorded is not None:
            self.recorded += taken
        return taken

    def put_back(self, text: str) -> None:
        """Undo the last `drop`, of this text."""
        self.text = text + self.text
        if self.recorded is not None:
            self.recorded = self.recorded.removesuffix(text)

    def space(self) -> Script:
        """Take space."""
        taken = ""
        while (yield from self.fill(1)):
            kept = self.text.lstrip(SPACE)
            taken += self.drop(len(self.text) - len(kept))
            if kept:
                break
        return taken

    def starts(self, *literals: str) -> Script:
        """The longest of some literals that comes next, without taking it; None if none does."""
        for literal in sorted(literals, key=len, reverse=True):
            while len(self.text) < len(literal) and literal.startswith(self.text) and not self.ended:
                yield
            if self.text.startswith(literal):
                return literal
        return None

    def take(self, *literals: str) -> Script:
        """As `starts`, and takes it."""
        found = yield from self.starts(*literals)
        if found is not None:
            self.drop(len(found))
        return found

    def until(self, markers: Sequence[str], emit: Emit) -> Script:
        """Emit all text before the first marker, which is taken and returned; None at the end of the text.

        Of markers that begin together the longest counts.
        """
        while True:
            place, found = _first(self.text, markers)
            begun = len(self.text) - _beginning(self.text, markers)
            if self.ended or begun > place or (found is not None and begun == len(self.text)):
                emit(self.drop(place))
                if found is not None:
                    self.drop(len(found))
                    return found
                if self.ended:
                    return None
            emit(self.drop(min(place, begun)))
            yield

    def json_value(self, emit: Emit) -> Script:
        """Emit the text of one JSON value, as far as it is one; True if it was whole."""
        if not (yield from self.fill(1)):
            return False
        if self.text[0] == '"':
            return (yield from self._string(emit))
        if self.text[0] not in "{[":
            scalar = ""
            while (yield from self.fill(1)) and self.text[0] not in ",]}" + SPACE + "<`":
                scalar += self.drop(1)
            emit(scalar)
            return bool(scalar)
        depth = 0
        while (yield from self.fill(1)):
            stop = next((at for at, character in enumerate(self.text) if character in '{}[]"'), None)
            if stop is None:
                emit(self.drop(len(self.text)))
                continue
            emit(self.drop(stop))
            if self.text[0] == '"':
                yield from self._string(emit)
                continue
            depth += 1 if self.text[0] in "{[" else -1
            emit(self.drop(1))
            if depth == 0:
                return True
        return False

    def _string(self, emit: Emit) -> Script:
        emit(self.drop(1))
        while (yield from self.fill(1)):
            stop = next((at for at, character in enumerate(self.text) if character in '"\\'), None)
            if stop is None:
                emit(self.drop(len(self.text)).translate(_ESCAPED))
                continue
            emit(self.drop(stop).translate(_ESCAPED))
            if self.text[0] == '"':
                emit(self.drop(1))
                return True
            if not (yield from self.fill(2)):
                emit(self.drop(1))
                return False
            emit(self.drop(2))
        return False


class ScriptReader:
    """A `Reader` that runs a script."""

    def __init__(self, script: Callable[[Scanner], Script]) -> None:
        self._scanner = Scanner()
        self._script = self._run(script)
        next(self._script)  # up to where it needs text

    def _run(self, script: Callable[[Scanner], Script]) -> Script:
        scanner = self._scanner
        yield from script(scanner)
        yield from scanner.until((), scanner.say)
        scanner.flush()

    @property
    def reasons(self) -> bool:
        return self._scanner.reasons

    def feed(self, text: str) -> list[Part]:
        if len(text) <= PIECE:
            self._scanner.text += text
            return self._go()
        pieces = (text[begin : begin + PIECE] for begin in range(0, len(text), PIECE))
        return merged([part for piece in pieces for part in self.feed(piece)])

    def end(self) -> list[Part]:
        self._scanner.ended = True
        return self._go()

    def _go(self) -> list[Part]:
        next(self._script, None)
        parts, self._scanner.parts = self._scanner.parts, []
        return merged(parts)


def merged(parts: Sequence[Part]) -> list[Part]:
    """The same with neighbours of one kind in one part."""
    whole: list[Part] = []
    for part in parts:
        last = whole[-1] if whole else None
        if isinstance(part, (Text, Reasoning)) and type(last) is type(part):
            whole[-1] = type(part)(last.text + part.text)  # type: ignore[union-attr]
        elif isinstance(part, CallArguments) and isinstance(last, CallArguments) and last.index == part.index:
            whole[-1] = CallArguments(part.index, last.text + part.text)
        else:
            whole.append(part)
    return whole


def _first(text: str, markers: Sequence[str]) -> tuple[int, str | None]:
    best, found = len(text), None
    for marker in markers:
        place = text.find(marker)
        if place >= 0 and (place < best or (place == best and found is not None and len(marker) > len(found))):
            best, found = place, marker
    return best, found


def _beginning(text: str, markers: Sequence[str]) -> int:
    """How many of the last characters may be the beginning of a marker."""
    longest = 0
    for marker in markers:
        for length in range(min(len(marker) - 1, len(text)), longest, -1):
            if text.endswith(marker[:length]):
                longest = length
                break
    return longest
