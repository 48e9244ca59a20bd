"""The engine process: `python -m tgi.engine.main --socket ipc://...`, its `EngineConfig` as JSON on stdin.

Owns the process: signals, parent watch, threads, the ZeroMQ PAIR socket (the API side binds it).
Says EngineInfo when ready or EngineFailed when it cannot start, then hands over to `core.run`.
Started by `launcher.supervisor` and `offline`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

import msgspec
import zmq

from tgi import collector, hardware, logs
from tgi.engine import core
from tgi.engine.blocks import BlockPool
from tgi.engine.scheduler import Scheduler
from tgi.errors import StartupError
from tgi.heartbeat import start_beating
from tgi.messages import EngineFailed, EngineInfo, EngineLoading, ToEngine, encode
from tgi.settings.config import EngineConfig
from tgi.untrusted import printable

logger = logging.getLogger("tgi.engine")

LINGER_MS = 2_000
"""How long a last message may take to reach the API process."""


class Socket:
    """The engine's end of the pair: typed messages in, any message out."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = zmq.Context.instance().socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.SNDHWM, 0)  # the API side drains; requests bound what can pile up
        self._socket.connect(address)
        self._decoder = msgspec.msgpack.Decoder(ToEngine)

    def receive(self, timeout_s: float) -> ToEngine | None:
        if not self._socket.poll(int(timeout_s * 1000)):
            return None
        return self._decoder.decode(self._socket.recv())

    def send(self, message: object) -> None:
        self._socket.send(encode(message))

    def close(self) -> None:
        self._socket.close()
        zmq.Context.instance().term()


def main() -> int:
    """Run the engine; the exit status is 0 after SIGTERM, 1 when it failed."""
    parser = argparse.ArgumentParser(description="The engine process; started by the launcher, not by hand.")
    parser.add_argument("--socket", required=True, help="ZeroMQ address of the API process")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="leave when this process is gone")
    arguments = parser.parse_args()
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=EngineConfig)
    logs.configure(config.log_level, json_output=config.json_output)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the launcher decides
    _end_on_sigterm()
    _watch_parent(arguments.parent)
    _set_threads(config)
    start_beating(arguments.socket)
    socket = Socket(arguments.socket)
    try:
        return _serve(config, socket)
    finally:
        socket.close()


def _serve(config: EngineConfig, socket: Socket) -> int:
    phase = "load"

    def enter(name: str) -> None:
        nonlocal phase
        phase = name
        socket.send(EngineLoading(name))  # type: ignore[arg-type]

    def report(done: int, total: int) -> None:
        socket.send(EngineLoading("load", done, total))

    try:
        socket.send(EngineLoading("start"))
        with collector.paused():  # imports torch, here, so that a failure reaches the API process
            from tgi.engine.worker import LoadProgress, Worker

        worker = Worker(config, enter, LoadProgress(report))
        info = worker.info
    except Exception as error:
        if not isinstance(error, StartupError):
            logger.exception("The engine cannot start")
        text = str(error) if isinstance(error, StartupError) else f"{type(error).__name__}: {error}"
        socket.send(EngineFailed(printable(text, 2000), phase))  # type: ignore[arg-type]
        return 1
    collector.settle()
    logger.info("Server started at %s", socket.address.replace("ipc://", "unix://"))
    socket.send(info)
    try:
        core.run(core.EngineCore(make_scheduler(info), worker, worker.grammars), socket.receive, socket.send)
    except core.EngineBrokenError:
        logger.exception("The engine stops")
    return 1


def make_scheduler(info: EngineInfo, **limits: Any) -> Scheduler:
    """A scheduler with the limits the worker found, or narrower ones."""
    defaults = {
        "max_step_tokens": info.max_batch_prefill_tokens,
        "max_batch_size": info.max_batch_size,
        "max_total_tokens": info.max_total_tokens,
        "prefix_caching": info.prefix_caching,
        "decoder_ids": info.decoder_ids,
        "shares_blocks": info.shares_blocks,
    }
    num_blocks = limits.pop("num_blocks", info.num_blocks)
    return Scheduler(BlockPool(num_blocks, info.block_size, info.num_states), **(defaults | limits))


def _end_on_sigterm() -> None:
    """SIGTERM ends the process with status 0 at once, whatever the main thread does: load, compute, or end already.

    The API process sends it when nothing here is of use any more. An exception out of a signal handler would come only
    after the native call under way, and anything between could swallow it; hence a thread that waits for the signal.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # threads that start later inherit this

    def end() -> None:
        signal.sigwait({signal.SIGTERM})
        os._exit(0)

    threading.Thread(target=end, name="sigterm", daemon=True).start()


def _watch_parent(parent: int) -> None:
    """Leave when the parent is gone, whatever the main thread is doing: no orphan holds the memory."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _set_threads(config: EngineConfig) -> None:
    """Before torch is imported: OpenMP reads its settings once."""
    threads = config.threads or hardware.cpu_count()
    os.environ["OMP_NUM_THREADS"] = str(threads)


if __name__ == "__main__":
    sys.exit(main())
