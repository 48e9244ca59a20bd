"""How a command ends: its exit status, and how an error looks.

0 after a clean end, 1 when something failed, 2 for a command line that cannot be understood, 128 and the number of the
signal (130 after Ctrl-C) where one ended it before the server ran.
"""

from __future__ import annotations

import functools
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from tgi import children
from tgi.errors import ArgumentError, DownloadError, EngineDiedError, PortError, StartupError, WebserverError
from tgi.launcher.signals import Terminated, leave, terminable
from tgi.settings.config import read_environment
from tgi.settings.parse import UsageError
from tgi.untrusted import printable

LONGEST = 4000
"""Characters of an error; names in it may be a stranger's."""
TGI_NAMES = {
    DownloadError: "DownloadError",
    PortError: "WebserverCannotStart",
    WebserverError: "WebserverFailed",
    EngineDiedError: "ShardFailed",
}


class EntryPoint(Protocol):
    """A command as an entry point of the package calls it."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        """The exit status; arguments: words of the command line, None for this process's own."""
        ...


def command(function: Callable[[Sequence[str]], int]) -> EntryPoint:
    """A function of the words of a command line as an entry point: without words it is this process's own command."""

    @functools.wraps(function)
    def run(arguments: Sequence[str] | None = None) -> int:
        if arguments is not None:
            return function(list(arguments))
        children.restart_in_utf8(read_environment())
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # for what PYTHONIOENCODING asks for and cannot say
        try:
            with terminable():
                status = function(sys.argv[1:])
        except Terminated as end:
            print("stopped", file=sys.stderr)
            status = int(end.code or 0)
        return leave(status)

    return run


def show(text: str) -> None:
    """Print; a reader who has seen enough (`| head`) is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush when Python ends


def guarded(name: str, like_tgi: bool, function: Callable[[], int]) -> int:
    """Run; errors of the user become a sentence on standard error and an exit status."""
    try:
        return function()
    except UsageError as error:
        tip = f"\n\n  tip: {error.tip}" if error.tip else ""
        print(f"error: {error}{tip}\n\nFor more information, try '{name} --help'.", file=sys.stderr)
        return 2
    except StartupError as error:
        print(_tgi_form(error) if like_tgi else f"error: {printable(error, LONGEST)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _tgi_form(error: StartupError) -> str:
    """TGI's launcher prints the debug form of its error."""
    if isinstance(error, ArgumentError):
        name = "NotEnoughCUDADevices" if "CUDA devices" in str(error) else "ArgumentValidation"
    else:
        name = TGI_NAMES.get(type(error), "ShardCannotStart")
    return f"Error: {name}({json.dumps(printable(error, LONGEST), ensure_ascii=False)})"
