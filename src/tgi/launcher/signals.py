"""Ctrl-C, SIGTERM and SIGHUP of a command that has no event loop of its own, and how its process ends.

Owns that the first of them stops the command with a word, that further ones change nothing, and that no thread holds
the end up. While the server runs, signals are `supervisor`'s.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
END_S = 0.2
"""For threads that still work when the command has ended, such as one that reads a tokenizer."""


class Terminated(SystemExit):
    """A signal wants this process to end, with the exit status that shells give it.

    Not an Exception, so that no handler of errors swallows it; a SystemExit, so that neither does an event loop.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within the block the first signal raises `Terminated`, and those after it are ignored.

    Only a main thread can do so; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers()}

    def stop(number: int, frame: object) -> None:
        ignore()
        raise Terminated(number)

    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def numbers() -> list[signal.Signals]:
    """The signals that stop this process: under `nohup` SIGHUP does not."""
    return [number for number in NUMBERS if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]


def ignore() -> None:
    """From now on no signal disturbs the end, which has begun."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def leave(status: int) -> int:
    """The end of a process with this exit status: quiet, and without waiting for threads that will not end.

    Python joins threads before it ends, those too that read a damaged tokenizer or wait for a collector of traces.
    """
    ignore()

    def end() -> None:
        time.sleep(END_S)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)

    threading.Thread(target=end, daemon=True, name="end").start()
    return status
