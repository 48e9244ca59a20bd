"""The server of a chat: one that runs, or one that is started for it, with its log out of the way.

Owns which of the running ones is meant, and start, progress and end of an own one.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from tgi import children
from tgi.commands.chat import keys, tied
from tgi.commands.chat.client import ChatError
from tgi.commands.ps import load_of
from tgi.hub.known import full_name
from tgi.launcher.registry import Running, running

LOOK_S = 0.1
STOP_S = 5.0
LAST_LINES = 12
"""Of the log, shown where the server does not start."""
LOG_BYTES = 1 << 20
"""Read of its end."""
DEFAULTS = ("--generation-defaults", "model")
"""Answers as the model's makers mean them, unless a flag says otherwise."""
PHASES = (
    (re.compile(r"Waiting for shard to be ready\.\.\. \((.*)\)"), r"\1"),
    (re.compile(r"Download file: (\S+)"), r"it fetches \1"),
    (re.compile(r"Starting check and download process"), "it looks for the model"),
    (re.compile(r"(.*: converting them), once"), r"\1"),
    (re.compile(r"Starting shard"), "it starts its engine"),
)
"""Lines of the log -> what they say of how far a start is."""
ADDRESS = re.compile(r"Listening on .*: (http://\S+)/docs")


def is_address(word: str) -> bool:
    """Whether a word is a server's address and no model's name: with a scheme, or HOST:PORT."""
    return "://" in word or re.fullmatch(r"(?:[\w.-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}(?:/.*)?", word) is not None


def find(model: str | None, variables: Mapping[str, str]) -> Running | None:
    """A server that runs and is ready, the latest: one with this model, or any where none is named."""
    meant = {model, full_name(model)} if model is not None else None
    for server in running(variables):
        if (meant is None or server.model in meant) and load_of(server).state == "ready":
            return server
    return None


@contextlib.contextmanager
def started(
    words: Sequence[str], name: str, progress: Callable[[str], None], variables: Mapping[str, str]
) -> Iterator[str]:
    """A server of our own for the block: gives its address.

    `words`: its flags; `progress` gets a line now and then, and at the end an empty one. Raises ChatError with the end
    of its log where it does not start.
    """
    own = ("--port", "0", "--hostname", "127.0.0.1", "--json-output=false")
    command = children.python(tied.__name__, str(os.getpid()), "serve", *DEFAULTS, *words, *own)
    environment = {name: value for name, value in variables.items() if name not in ("PORT", "HOSTNAME", "MODEL_ID")}
    environment |= {"LOG_LEVEL": "info", "NO_COLOR": "1"}
    with tempfile.TemporaryFile(buffering=0) as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C ends an answer, and not the server
        )
        try:
            with keys.held():
                url = _wait(child, log.fileno(), name, progress)
            yield url
        finally:
            progress("")
            _stop(child)


def _wait(child: subprocess.Popen[bytes], log: int, name: str, progress: Callable[[str], None]) -> str:
    """Wait until the server is ready; its address. Raises ChatError."""
    began = time.monotonic()
    while child.poll() is None:
        lines = _lines(log)
        if any(line.endswith(": Connected") for line in lines):
            for line in lines:
                if found := ADDRESS.search(line):
                    progress("")
                    return found[1]
        progress(f"Starting {name}: {phase(lines)} ({time.monotonic() - began:.0f} s)")
        time.sleep(LOOK_S)
    lines = [line for line in _lines(log) if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    reason = errors[-1] if errors else "\n  ".join(["its log ends with", *lines[-LAST_LINES:]])
    raise ChatError(f"the server did not start: {reason}")


def phase(lines: Sequence[str]) -> str:
    """What a start waits for, from its log."""
    for line in reversed(lines):
        for pattern, says in PHASES:
            if found := pattern.search(line):
                return found.expand(says)
    return "its process starts"


def _lines(log: int) -> list[str]:
    """Of the end of a file that another process goes on writing: where that one writes must not be moved."""
    start = max(0, os.fstat(log).st_size - LOG_BYTES)
    return os.pread(log, LOG_BYTES, start).decode("utf-8", "replace").splitlines()


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End it, and do not be kept from that by another signal."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(STOP_S)
        return
    child.kill()
    child.wait()
