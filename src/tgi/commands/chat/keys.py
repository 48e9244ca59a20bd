"""What is typed while nothing asks for it: it is not shown, and waits for the next prompt.

Else it would stand in the middle of the answer that is written.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

try:
    import termios
except ImportError:  # no Unix
    termios = None


@contextlib.contextmanager
def held() -> Iterator[None]:
    """For the block, where standard input is a terminal. Ctrl-C and Ctrl-Z go on working.

    Enter arrives as it does at a prompt, so a question that is typed ahead is asked when its turn comes.
    """
    descriptor = _terminal()
    if termios is None or descriptor is None:
        yield
        return
    before = termios.tcgetattr(descriptor)
    iflag, oflag, cflag, lflag, *rest = before
    silent = [iflag & ~termios.ICRNL, oflag, cflag, lflag & ~(termios.ECHO | termios.ICANON), *rest]
    termios.tcsetattr(descriptor, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


def _terminal() -> int | None:
    """Standard input's descriptor, where it is a terminal."""
    with contextlib.suppress(OSError, ValueError):  # it is closed, or no file
        descriptor = sys.stdin.fileno()
        return descriptor if os.isatty(descriptor) else None
    return None
