"""The engine as a child process: start, wait, stop, and its end in words.

Knows nothing of the socket's messages (`serving.engine_client`) nor of what to do when it dies
(`supervisor`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping

import msgspec

from tgi import children
from tgi.messages import EngineLoading
from tgi.settings.config import EngineConfig
from tgi.shorten import size

ENGINE_MODULE = "tgi.engine.main"

SECRETS = ("API_KEY", "HF_TOKEN", "HF_API_TOKEN", "HUGGING_FACE_HUB_TOKEN", "NGROK_AUTHTOKEN")
"""Variables that the engine has no use for."""

MEANINGS = {
    signal.SIGKILL: "killed, probably because memory ran out: use a smaller model or --kv-cache-memory, or see dmesg",
    signal.SIGILL: "stopped by an illegal instruction: this CPU lacks one that an installed library was built for",
    signal.SIGBUS: "stopped by a bus error: the disk or /dev/shm is full, or a weight file changed while in use",
    signal.SIGSEGV: "stopped by a segmentation fault in a native library",
    signal.SIGABRT: "aborted by a native library",
}


WAITS_FOR = {
    "start": "it loads its libraries",
    "load": "it reads the weights",
    "allocate": "it reserves the KV cache",
    "warmup": "it computes a first step",
}


class EngineProcess:
    """One engine, started by `start`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(
        cls, config: EngineConfig, address: str, variables: Mapping[str, str], module: str = ENGINE_MODULE
    ) -> EngineProcess:
        """Start the engine; it connects to `address` and logs to our standard output.

        It runs in a session of its own, so that Ctrl-C in a terminal reaches the launcher alone.
        """
        environment = {name: value for name, value in variables.items() if name not in SECRETS}
        environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        process = await asyncio.create_subprocess_exec(
            *children.python(module, "--socket", address, "--parent", str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(config))
        process.stdin.close()
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended_by_sigterm(self) -> bool:
        """Status 0 after it has begun to serve, the signal itself before."""
        return self._process.returncode in (0, -signal.SIGTERM)

    async def wait(self) -> int:
        """Wait for its end: the exit status, or minus the number of the signal; see `describe_exit`."""
        return await self._process.wait()

    async def stop(self, patience_s: float) -> None:
        """Ask it to end, and end it after `patience_s` seconds. Returns when it is gone."""
        if self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):  # it ended between the look and the signal
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), patience_s)
            except TimeoutError:
                self._process.kill()
        await self._process.wait()


def describe_exit(status: int, *, for_clients: bool = False) -> str:
    """How it ended, as the rest of "the engine process ...".

    `for_clients`: without causes and advice, which are for whoever runs the server.
    """
    if status >= 0:
        return f"ended with status {status}"
    try:
        number = signal.Signals(-status)
    except ValueError:
        return f"was ended by signal {-status}"
    if for_clients:
        return f"was {'killed' if number is signal.SIGKILL else 'ended'} ({number.name})"
    return f"was {MEANINGS.get(number, 'ended')} ({number.name})"


def waits_for(loading: EngineLoading | None) -> str:
    """What the engine does while the launcher waits, for the log."""
    if loading is None:
        return "its process starts"
    if loading.phase == "load" and loading.total:
        return f"it has read {size(loading.done)} of {size(loading.total)} of weights"
    return WAITS_FOR[loading.phase]
