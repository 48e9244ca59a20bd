"""The engine's start in words."""

from __future__ import annotations

import asyncio
import signal
import typing

import pytest

from tgi.launcher.engine_process import WAITS_FOR, EngineProcess, describe_exit, waits_for
from tgi.messages import EngineLoading


@pytest.mark.parametrize(
    ("loading", "says"),
    [
        (None, "its process starts"),
        (EngineLoading("start"), "it loads its libraries"),
        (EngineLoading("load"), "it reads the weights"),
        (EngineLoading("load", 3 << 29, 3 << 30), "it has read 1.50 GiB of 3.00 GiB of weights"),
        (EngineLoading("allocate"), "it reserves the KV cache"),
        (EngineLoading("warmup"), "it computes a first step"),
    ],
)
def test_what_the_launcher_waits_for(loading: EngineLoading | None, says: str) -> None:
    assert waits_for(loading) == says


def test_every_phase_has_words() -> None:
    phases = typing.get_args(typing.get_type_hints(EngineLoading)["phase"])
    assert set(WAITS_FOR) == set(phases)


@pytest.mark.parametrize("number", [*signal.Signals, 70])
def test_clients_are_not_advised_how_to_run_the_server(number: int) -> None:
    name = number.name if isinstance(number, signal.Signals) else "70"
    for_clients = describe_exit(-number, for_clients=True)
    assert name in for_clients
    assert name in describe_exit(-number)
    assert "--" not in for_clients
    assert ":" not in for_clients


def test_whoever_runs_the_server_is_advised() -> None:
    assert "use a smaller model or --kv-cache-memory" in describe_exit(-signal.SIGKILL)
    assert describe_exit(3) == describe_exit(3, for_clients=True) == "ended with status 3"


class Ending:
    """A process that ends on its own just before a signal reaches it."""

    returncode = None

    def __init__(self, signal_: str) -> None:
        self._last = signal_
        self._ended = asyncio.Event()

    def terminate(self) -> None:
        self._end("terminate")

    def kill(self) -> None:
        self._end("kill")

    def _end(self, signal_: str) -> None:
        if signal_ == self._last:
            self._ended.set()
            raise ProcessLookupError

    async def wait(self) -> int:
        await self._ended.wait()
        return 0


@pytest.mark.parametrize("signal_", ["terminate", "kill"])
async def test_a_process_that_ends_before_its_signal(signal_: str) -> None:
    await EngineProcess(Ending(signal_)).stop(0.01)  # type: ignore[arg-type]
