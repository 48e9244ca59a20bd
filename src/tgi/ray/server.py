"""Our ordinary server as a child of a replica: started, asked how it does, drained, ended with all its processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tgi import children
from tgi.errors import StartupError
from tgi.replicas.replica import Replica, Said
from tgi.replicas.upstream import UpstreamError
from tgi.settings.parse import options

POLL_S = 0.1
PATIENCE_S = 2.0
"""For an answer of /health."""
END_S = 15.0
"""For the end of the server beyond the time that open answers have."""
LINES_KEPT = 20
FLAGS = {option.env for option in options() if option.env} | {"OMP_NUM_THREADS"}
"""Variables that a server would read: what it gets is on its command line. Ray sets the last one."""


class Server:
    """One server on an address of this machine."""

    def __init__(self, host: str, port: int, process: asyncio.subprocess.Process, directory: Path) -> None:
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._process, self._directory = process, directory
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._reading = asyncio.create_task(self._read())
        self._asked = Replica(0, self.url)

    @classmethod
    async def start(cls, words: Sequence[str], variables: Mapping[str, str], host: str, keys: Sequence[str]) -> Server:
        """Start it; `ready` waits until it serves."""
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            sock.bind((host, 0))
            port = sock.getsockname()[1]
        directory = Path(tempfile.mkdtemp(prefix="tgi-replica-"))
        flags = [*words, f"--hostname={host}", f"--port={port}"]
        if keys:
            file = directory / "keys"
            file.touch(mode=0o600)
            file.write_text("\n".join(keys))
            flags.append(f"--api-key-file={file}")
        process = await asyncio.create_subprocess_exec(
            *children.python("tgi.ray.child", str(os.getpid()), "--", *flags),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={name: value for name, value in variables.items() if name not in FLAGS},
            start_new_session=True,
        )
        return cls(host, port, process, directory)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ready(self) -> None:
        """Wait until it serves. Raises StartupError with its own words when it ends instead."""
        while True:
            if self._process.returncode is not None:
                await self._reading
                raise StartupError(self.last_words())
            with contextlib.suppress(UpstreamError, TimeoutError):
                if (await self._asked.get("/health", PATIENCE_S))[0] == 200:
                    self._forget_keys()
                    return
            await asyncio.sleep(POLL_S)

    async def said(self) -> Said:
        """What it says of itself. Raises UpstreamError when it does not, or says that it is not healthy."""
        if self._process.returncode is not None:
            raise UpstreamError(f"the server has ended: {self.last_words()}")
        try:
            status, body = await self._asked.get("/health?verbose=1", PATIENCE_S)
        except TimeoutError:
            raise UpstreamError(f"the server has been silent for {PATIENCE_S:g} s") from None
        if status != 200:
            raise UpstreamError(f"the server says {status}")
        return msgspec.json.decode(body, type=Said)

    def last_words(self) -> str:
        """The error that it ended with, or else its exit status."""
        errors = [line for line in self._lines if line.startswith("error: ")]
        return errors[-1].removeprefix("error: ") if errors else f"exit status {self._process.returncode}"

    async def drain(self, seconds: float) -> None:
        """Let open answers end, then end it; after that time it is killed."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), seconds + END_S)
        await self.kill()

    async def kill(self) -> None:
        """End it now, with all its processes, those that are stopped included."""
        for pid in reversed(descendants(self._process.pid) if self._process.returncode is None else []):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self._process.wait()
        self._reading.cancel()
        self._asked.pool.abort()
        self._forget_keys()

    def _forget_keys(self) -> None:
        """The server has read its file of keys: it is not to be left where this process is killed."""
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _read(self) -> None:
        """Its log goes to ours."""
        assert self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # a line longer than the reader holds
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            self._lines.append(text)
            print(text, file=sys.stdout, flush=True)


def descendants(pid: int) -> list[int]:
    """A process and all that it started, each after its parent."""
    found = [pid]
    for one in found:  # grows
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, task.read_text().split())
    return found
