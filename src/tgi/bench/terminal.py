"""Keys and redrawing on a terminal, for both live screens.

Owns putting the terminal into the mode where keys come one by one, and back. Where standard input
or output is no terminal there are no keys and no screen, and nothing else changes.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live

SWITCH_S = 0.0005
ARROWS = {b"\x1b[C": "right", b"\x1b[D": "left", b"\x1bOC": "right", b"\x1bOD": "left", b"\x1b[Z": "left"}
NAMES = {"\t": "right", "l": "right", "h": "left"}


@contextmanager
def keys(press: Callable[[str], None]) -> Iterator[None]:
    """Call `press` with each key: a character, `left`, `right`. Needs a running event loop."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    loop = asyncio.get_running_loop()

    def read() -> None:
        for key in decode(sys.stdin.buffer.raw.read(64) or b""):  # type: ignore[attr-defined]
            press(key)

    tty.setcbreak(number)
    loop.add_reader(number, read)
    try:
        yield
    finally:
        loop.remove_reader(number)
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def decode(data: bytes) -> list[str]:
    """Keys in what a terminal sent at once."""
    if data in ARROWS:
        return [ARROWS[data]]
    if data.startswith(b"\x1b"):
        return []
    return [NAMES.get(character, character) for character in data.decode("utf-8", "ignore")]


@contextmanager
def interrupts(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C calls `stop`; a second one ends the command at once."""
    loop = asyncio.get_running_loop()

    def first() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        stop()

    try:
        loop.add_signal_handler(signal.SIGINT, first)
    except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@contextmanager
def screen(console: Console, render: Callable[[], RenderableType], wanted: bool = True) -> Iterator[None]:
    """Draw `render()` twice a second while inside, from a thread; what it showed is gone afterwards."""
    if not (wanted and console.is_terminal):
        yield
        return
    before = sys.getswitchinterval()
    # Packets are stamped when read: the drawing thread must not hold the interpreter for long.
    sys.setswitchinterval(SWITCH_S)
    try:
        with Live(console=console, get_renderable=render, refresh_per_second=2, transient=True):
            yield
    finally:
        sys.setswitchinterval(before)
