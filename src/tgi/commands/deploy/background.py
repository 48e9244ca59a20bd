"""A deployment in the background: started by `--detach`, listed by `status`, ended by `down`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tgi import children
from tgi.commands.deploy import text
from tgi.commands.ending import show
from tgi.commands.simple_flags import simple_flags
from tgi.errors import StartupError
from tgi.ray.flags import DeployFlags
from tgi.ray.state import State, directory, found, read

POLL_S = 0.1
KILL_S = 150.0
"""For a deployment to end before it is told a second time."""
STATUS_HELP = """\
List the deployments of this user on this machine, and what they run where.

Usage: tgi deploy status [OPTIONS]

Options:
  -h, --help     Print this text"""
DOWN_HELP = """\
End a deployment: open answers end first, then its replicas, its routers, and Ray if it was started for it.

Usage: tgi deploy down [NAME] [OPTIONS]

Without a name: the only one there is.

Options:
  --now          Do not wait for open answers
  -h, --help     Print this text"""


def detach(words: Sequence[str], flags: DeployFlags, variables: Mapping[str, str]) -> int:
    """Start the same command in the background and wait until it serves. Raises StartupError."""
    place = directory(variables)
    path, log = place / f"{flags.name}.json", place / f"{flags.name}.log"
    if read(path) is not None:
        raise StartupError(f"a deployment `{flags.name}` runs already: `tgi deploy down {flags.name}` ends it")
    again = [word for word in words if word.partition("=")[0] != "--detach"]
    with log.open("w") as out:
        child = subprocess.Popen(
            children.python("tgi", "deploy", *again),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        state = _wait_ready(child, path, log)
    except BaseException:
        child.terminate()
        child.wait()
        raise
    show(f"{text.heading(state)}\n{text.table(state)}\nIts log is {log}; `tgi deploy down {flags.name}` ends it.")
    return 0


def _wait_ready(child: subprocess.Popen[bytes], path: Path, log: Path) -> State:
    while True:
        if child.poll() is not None:
            raise StartupError(_last_words(log, child.returncode))
        state = read(path)
        if state is not None and state.pid == child.pid and state.ready:
            return state
        time.sleep(POLL_S)


def _last_words(log: Path, status: int) -> str:
    errors = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else f"it ended with status {status}: see {log}"


def status(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """Exit status 0. Raises UsageError, StartupError."""
    if simple_flags(words, STATUS_HELP) is None:
        return 0
    states = found(variables)
    shown = [f"{text.heading(state)}\n{text.table(state)}" for state in states]
    show("\n\n".join(shown) or "No deployment runs.")
    return 0


def down(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """Exit status 0. Raises UsageError, StartupError."""
    flags = simple_flags(words, DOWN_HELP, switches=("--now",), most_words=1)
    if flags is None:
        return 0
    state = _chosen(found(variables), flags.words)
    path = directory(variables) / f"{state.name}.json"
    _signal(state)
    if "--now" in flags.given:
        time.sleep(POLL_S)
        _signal(state)
    again_at = time.monotonic() + KILL_S
    while read(path) is not None:
        if time.monotonic() > again_at:
            _signal(state)
            again_at = time.monotonic() + KILL_S
        time.sleep(POLL_S)
    show(f"{state.name} has ended.")
    return 0


def _chosen(states: Sequence[State], names: Sequence[str]) -> State:
    listed = ", ".join(f"`{one.name}`" for one in states)
    if not states:
        raise StartupError("no deployment runs")
    if not names and len(states) > 1:
        raise StartupError(f"there are {listed}: say which one")
    for state in states:
        if not names or state.name == names[0]:
            return state
    raise StartupError(f"no deployment `{names[0]}` runs: there is {listed}")


def _signal(state: State) -> None:
    if state.pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(state.pid, signal.SIGTERM)


COMMANDS = {"status": status, "down": down}
