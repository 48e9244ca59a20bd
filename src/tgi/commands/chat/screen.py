"""How a chat looks: the answer as it comes, reasoning dimmed, notes apart from both.

Owns colours (none where the output is no terminal, or NO_COLOR is set) and that nothing that a model says steers the
terminal.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Mapping
from typing import TextIO

DIM, BOLD, RED, RESET = "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[0m"
_STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Without characters that would steer a terminal; line feeds and tabs stay."""
    return _STEERS.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


class Screen:
    """Where a chat is written to."""

    def __init__(self, variables: Mapping[str, str], output: TextIO | None = None, notes: TextIO | None = None) -> None:
        self.output = output or sys.stdout
        self.notes = notes or sys.stderr
        plain = bool(variables.get("NO_COLOR")) or variables.get("TERM") == "dumb"
        self.terminal = self.output.isatty()
        self._color = self.terminal and not plain
        self._color_notes = self.notes.isatty() and not plain
        self._reasoning = False
        self._column = 0
        """0: at the beginning of a line."""

    def reasoning(self, text: str) -> None:
        """A piece of reasoning; only a terminal shows it."""
        if self.terminal:
            if not self._reasoning:
                self._reasoning = True
                self._write("Thinking: " if not self._color else "")
            self._write(f"{DIM}{harmless(text)}{RESET}" if self._color else harmless(text), harmless(text))

    def text(self, text: str) -> None:
        """A piece of the answer."""
        if self._reasoning:
            self.end_line()
            self._write("\n")
            self._reasoning = False
        self._write(harmless(text) if self.terminal else text)

    def end_line(self) -> None:
        """What comes next begins a line."""
        if self._column:
            self._write("\n")
        self._reasoning = False

    def note(self, text: str) -> None:
        """A line about the answer, or in answer to a command."""
        self.notes.write(f"{DIM}{harmless(text)}{RESET}\n" if self._color_notes else f"{harmless(text)}\n")
        self.notes.flush()

    def error(self, text: str) -> None:
        self.notes.write(
            f"{RED}error:{RESET} {harmless(text)}\n" if self._color_notes else f"error: {harmless(text)}\n"
        )
        self.notes.flush()

    def progress(self, text: str) -> None:
        """A line that the next one replaces, on a terminal; empty: none. Elsewhere nothing is written."""
        if self.notes.isatty():
            width = _width(self.notes)
            self.notes.write(f"\r\x1b[K{harmless(text)[: width - 1]}" if text else "\r\x1b[K")
            self.notes.flush()

    def _write(self, text: str, plain: str | None = None) -> None:
        seen = text if plain is None else plain
        if seen:
            self._column = 0 if seen.endswith("\n") else 1
        self.output.write(text)
        self.output.flush()


def _width(stream: TextIO) -> int:
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80
