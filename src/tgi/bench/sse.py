"""Server-sent events out of pieces of bytes, cut anywhere.

Owns the framing (WHATWG HTML, section 9.2: LF, CR LF or CR ends a line, an empty line ends an event, lines that
begin with a colon are comments). Only `data` is kept.
"""

from __future__ import annotations


class EventReader:
    """Feed it bytes as they come; it gives the data of every event that became complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """Data of the events that `piece` completes; lines of one event are joined by a line feed."""
        text = self._rest + piece
        held = b""
        if b"\r" in text:
            if text.endswith(b"\r"):  # the line feed that belongs to it may come with the next piece
                text, held = text[:-1], b"\r"
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = text.split(b"\n")
        self._rest = lines.pop() + held
        events = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data = []
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        return events
