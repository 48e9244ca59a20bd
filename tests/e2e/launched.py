"""A launcher in a subprocess, its log as it comes, and its end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
REAL = ("-m", "tgi", "serve")
LAUNCHER = ("-c", "import sys; from tgi.commands.cli import launcher_main; sys.exit(launcher_main())")
SCRIPTED = ("-m", "tests.e2e.launch_scripted")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def environment(home: Path, **more: str) -> dict[str, str]:
    """A clean environment: none of the variables that are flags, nothing of the user's."""
    variables = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    variables |= {"HOME": str(home), "TMPDIR": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    return variables | more


class Launched:
    """One run of a command. Use as a context: leaving it kills what is left."""

    def __init__(
        self, program: Sequence[str], arguments: Sequence[str], home: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        self.port = free_port()
        self.home = home
        self.lines: list[str] = []
        """Standard output and standard error together."""
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, *program, "--port", str(self.port), "--hostname", "127.0.0.1", *arguments],
            cwd=home,
            env=environment(home, **(variables or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    @property
    def messages(self) -> list[str]:
        """The log without time, level and target."""
        found = [re.match(r"^\S+Z +[A-Z]+ (?:\w+\{.*?\}: )?(\w+): (.*)$", line) for line in self.lines]
        return [match[2] for match in found if match]

    def wait_for(self, text: str, timeout: float = 100.0) -> str:
        """The first line that contains `text`."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                for line in self.lines:
                    if text in line:
                        return line
                left = deadline - time.monotonic()
                if left <= 0 or not self._reader.is_alive():
                    raise AssertionError(f"{text!r} never came:\n{self.log}")
                self._news.wait(min(left, 0.5))

    def connected(self) -> Launched:
        self.wait_for("Connected")
        return self

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = 30.0) -> int:
        """The exit status."""
        status = self._process.wait(timeout)
        self._reader.join(timeout)
        return status

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self._process.pid).children(recursive=True)

    @property
    def engine(self) -> psutil.Process:
        return next(child for child in self.children() if "--socket" in child.cmdline())

    def post(self, path: str = "/generate", timeout: float = 60.0, **body: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=timeout)

    def left_over(self) -> list[str]:
        """Private directories that should be gone after the end."""
        return [path.name for path in self.home.iterdir() if path.name.startswith("tgi-")]

    def __enter__(self) -> Launched:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            for process in [*self.children(), psutil.Process(self._process.pid)]:
                process.kill()
        self._process.wait(10)
        self._reader.join(10)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()


class Stream:
    """A streaming generation read by a thread, as a client of its own would."""

    def __init__(self, server: Launched, **body: Any) -> None:
        self.events: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.times: list[float] = []
        self.first = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(server, body), daemon=True)
        self._thread.start()
        assert self.first.wait(30), "no event came"

    def join(self, timeout: float = 30.0) -> list[dict[str, Any]]:
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the stream never ended"
        return self.events

    def _run(self, server: Launched, body: dict[str, Any]) -> None:
        try:
            with httpx.stream("POST", f"{server.url}/generate_stream", json=body, timeout=60) as response:
                for line in response.iter_lines():
                    if line.startswith("data:"):
                        self.events.append(json.loads(line[5:]))
                        self.times.append(time.monotonic())
                        self.first.set()
        except httpx.HTTPError as error:
            self.error = error
        self.first.set()
