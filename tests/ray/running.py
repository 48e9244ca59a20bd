"""`tgi deploy` as a process, the load on it, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.e2e import launched
from tests.replicas.background import Background
from tgi import children
from tgi.ray.ports import free_ports
from tgi.ray.server import descendants

START_S = 240
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Count to 10"}], "ignore_eos": True, "temperature": 0}


def variables(place: Path) -> dict[str, str]:
    """Ray's own files are in /tmp, since the names of its sockets may not be long."""
    return launched.environment(place, XDG_RUNTIME_DIR=str(place), RAY_TMPDIR="/tmp", TMPDIR="/tmp")


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)
    return found


@dataclass
class Deployment:
    """A deployment in the foreground."""

    process: subprocess.Popen[str]
    port: int
    place: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def replicas(self) -> list[dict[str, Any]]:
        """As its state file tells."""
        text = (self.place / "tgi-deployments" / "tgi.json").read_text()
        try:
            return json.loads(text)["replicas"]
        except json.JSONDecodeError:  # it is being written
            return self.replicas

    def chat(self, **fields: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/chat/completions", json=CHAT | fields, timeout=120, trust_env=False)


@contextmanager
def deployed(tmp_path: Path, *flags: str, environment: Mapping[str, str] | None = None) -> Iterator[Deployment]:
    place, port, log = tmp_path / "state", free_ports(1)[0], tmp_path / "log"
    place.mkdir(exist_ok=True, mode=0o700)
    with log.open("w") as out:
        process = subprocess.Popen(
            children.python("tgi", "deploy", "--port", str(port), *flags),
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            env={**variables(place), **(environment or {})},
        )
        tree: list[int] = []
        try:

            def ready() -> bool:
                assert process.poll() is None, log.read_text()
                return "Serving on" in log.read_text()

            wait_for(ready, START_S)
            yield Deployment(process, port, place, log)
        finally:
            tree = descendants(process.pid)
            process.send_signal(signal.SIGTERM)
            try:
                assert process.wait(timeout=150) == 0, log.read_text()
            finally:
                process.kill()
                left = [pid for pid in tree if alive(pid)]
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
        assert not left, log.read_text()


def alive(pid: int) -> bool:
    """Whether it still runs some seconds later."""
    for _ in range(50):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except OSError:
            return False
        time.sleep(0.1)
    return True


class Load(Background):
    """Streams that come and go, each of which must be whole."""

    def __init__(self, url: str, at_once: int, model: str = "tgi-demo") -> None:
        super().__init__(at_once)
        self._url, self._model = url, model
        self.whole = 0
        self.broken: list[str] = []

    def work(self, number: int) -> None:
        count = 0
        with httpx.Client(timeout=120, trust_env=False) as client:
            while not self.ending.is_set():
                count += 1
                text = f"Conversation {number} number {count}"
                body = CHAT | {"messages": [{"role": "user", "content": text}], "stream": True, "max_tokens": 60}
                body["model"] = self._model
                try:
                    with client.stream("POST", f"{self._url}/v1/chat/completions", json=body) as answer:
                        said = answer.read().decode()
                    chunks = said.count('"delta"')
                    if answer.status_code == 200 and said.endswith("data: [DONE]\n\n") and chunks == 60:
                        self.whole += 1
                    else:
                        self.broken.append(f"{answer.status_code}, {chunks} chunks: {said[-300:]}")
                except httpx.HTTPError as error:
                    self.broken.append(repr(error))


def is_engine(pid: int) -> bool:
    return b"tgi.engine.main" in Path(f"/proc/{pid}/cmdline").read_bytes()
