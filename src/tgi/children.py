"""Python processes that this package starts: one command line for all of them, and no survivor of a stop.

A child must never import from the directory it is started in, which may be a model's: files of a model run no code.
Hence `-P`, which keeps that directory off the import path; a test forbids starting Python in any other way.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn


def python(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of ours in a process of its own."""
    return [sys.executable, "-P", "-m", module, *arguments]


def become(module: str, *arguments: str) -> NoReturn:
    """Go on as another module of ours, in this process."""
    command = python(module, *arguments)
    os.execv(command[0], command)


def restart_in_utf8(variables: Mapping[str, str]) -> None:
    """Begin this process anew in Python's UTF-8 mode, where the locale has another encoding; else do nothing.

    Names of files that are not ASCII would otherwise be read in a way that messages between processes, JSON and most
    libraries cannot take. variables: the environment.
    """
    if codecs.lookup(sys.getfilesystemencoding()).name != "utf-8":
        command = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execve(sys.executable, command, {**variables, "PYTHONUTF8": "1"})


@contextlib.contextmanager
def started(command: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A running child that is waited for at the end of the block, or killed when the block is left by an exception.

    `subprocess.Popen` alone would wait for it in that case, too: a stop would last as long as the child. It is in a
    group of its own: Ctrl-C reaches this process, which ends it, and not the child, which would print where it was.
    options: as `Popen` takes them.
    """
    with contextlib.ExitStack() as stack:
        with _signals_held():
            child = stack.enter_context(subprocess.Popen(command, process_group=0, **options))
            stack.push(lambda kind, error, trace: child.kill() if kind else None)  # before it is waited for
        yield child


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Signals that come within the block are handled at its end.

    A handler that raises in the middle of `Popen` would leave a child that nobody knows. Masks do not serve: a child
    inherits them. Handlers run in the main thread only; elsewhere nothing changes.
    """
    came: list[int] = []
    handlers: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        handlers = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in came:
        signal.raise_signal(number)
