"""One run of the server: the engine as a child, HTTP in this process, from start to clean end.

Owns the order of start and stop, signals, and what happens when the engine dies. Owns neither how
models are found (`prepare`) nor routes (`api`).

    first signal   new requests get 503, running ones finish within the graceful timeout
    second signal  running requests get an error event at once, and all ends within a second, as after that timeout
    engine dead    running requests get an error event at once, /health says 503, `EngineDiedError`
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import socket
import time
from collections.abc import Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from tgi import collector
from tgi.errors import EngineDiedError, StartupError, WebserverError
from tgi.launcher import signals
from tgi.launcher.engine_process import ENGINE_MODULE, EngineProcess, describe_exit, waits_for
from tgi.launcher.http_server import CLOSE_TIMEOUT_S, HttpServer, bind
from tgi.launcher.private_directory import private_directory
from tgi.launcher.registry import registered
from tgi.launcher.status_line import StatusLine
from tgi.memory.table import plan_lines
from tgi.messages import EngineInfo, StepStats
from tgi.metrics import Metrics
from tgi.serving.engine_client import EngineClient
from tgi.settings.config import ApiConfig, EngineConfig
from tgi.tracing import create_tracer

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from tgi.serving.service import Service

logger = logging.getLogger(__name__)
router_logger = logging.getLogger("tgi.serving.router")

FIRST_WAITING_S = 2.0
"""Until the first line that says what the start waits for."""
STILL_WAITING_S = 10.0
"""Between two lines that say that the engine still loads."""
ENGINE_STOP_S = 1.0
"""For the engine to end after SIGTERM, which it does at once unless it is frozen."""
ENGINE_END_S = 2.0
"""For the engine to end by itself after it said that it failed."""
LINGER_S = 3.0
"""How long /health says 503 after the engine died, before this process ends."""
LAST_WORDS_S = 0.2
"""For the last message of a dying engine, which explains more than its exit status."""
EVENTS_OUT_S = 5.0
"""For error events to reach their readers, at most."""
CLOSE_S = CLOSE_TIMEOUT_S + 1.0
"""For the web server to send the end of its answers, at most."""
TRACES_OUT_S = 5.0
"""For the last traces to reach their collector, at most."""
LATE_S = 0.2
"""In place of each of these when the time for a graceful end is over."""


def serve(
    api: ApiConfig, engine: EngineConfig, variables: Mapping[str, str], *, engine_module: str = ENGINE_MODULE
) -> int:
    """Serve until a signal; give the exit status. Raises `StartupError`, also when the engine or the server dies."""
    sock = bind(api.hostname, api.port)
    with (
        contextlib.closing(sock),
        registered((*api.served_model_names, api.model_id)[0], sock, key=bool(api.api_keys), variables=variables),
        private_directory(variables) as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(Supervisor(api, engine, variables, directory, sock).run(engine_module))


class Threads(ThreadPoolExecutor):
    """Threads of the event loop that its end does not wait for: what they load or send is of no use by then."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


class Supervisor:
    """Holds what lives as long as the server does."""

    def __init__(
        self, api: ApiConfig, engine: EngineConfig, variables: Mapping[str, str], directory: Path, sock: socket.socket
    ) -> None:
        self._api, self._engine, self._variables, self._socket = api, engine, variables, sock
        self._address = f"ipc://{directory / 'engine.sock'}"
        self._client = EngineClient(self._address)
        self._tracer = create_tracer(api.otlp_endpoint, api.otlp_service_name)  # what it lacks is said before loading
        self._stop = asyncio.Event()
        """The first signal came."""
        self._abort = asyncio.Event()
        """The second signal came, or the time for running requests is over: all must end at once."""
        self._engine_gone = asyncio.Event()
        self._serving = False
        """It is ready, and so is the web server."""
        self._engine_failed = False
        """It said that it cannot start."""
        self._engine_end = ""
        """How its process ended, in words."""
        self._engine_was_stopped = False
        """By somebody's SIGTERM, while this process was stopping too: service managers signal every process."""

    async def run(self, engine_module: str) -> int:
        """The whole life; gives the exit status. Raises `StartupError`."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(Threads())
        numbers = signals.numbers()
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal)
        try:
            return await self._run(engine_module)
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
            signals.ignore()

    async def _run(self, engine_module: str) -> int:
        await self._client.start()
        logger.info("Starting shard")
        process = await EngineProcess.start(self._engine, self._address, self._variables, engine_module)
        watch = asyncio.create_task(self._watch(process), name="engine-watch")
        try:
            return await self._load_and_serve()
        finally:
            logger.info("Shutting down shards")
            if self._engine_failed:  # it ends by itself, after cleaning up
                await asyncio.wait({watch}, timeout=ENGINE_END_S)
            watch.cancel()
            await self._client.close()
            await process.stop(self._patience(ENGINE_STOP_S))

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._abort.set()
        self._stop.set()

    def _patience(self, seconds: float) -> float:
        return LATE_S if self._abort.is_set() else seconds

    async def _watch(self, process: EngineProcess) -> None:
        status = await process.wait()
        self._engine_was_stopped = self._stop.is_set() and process.ended_by_sigterm
        await asyncio.sleep(LAST_WORDS_S)
        self._engine_end = f"the engine process {describe_exit(status)}"
        self._client.engine_lost(f"the engine process {describe_exit(status, for_clients=True)}", self._engine_end)
        if self._serving and not self._stop.is_set():  # while loading this is the error that ends the start
            logger.error("The engine process %s", describe_exit(status))
        self._engine_gone.set()

    async def _load_and_serve(self) -> int:
        began = time.monotonic()
        service = await self._unless_stopped(asyncio.create_task(self._load()))
        if service is None:
            return 0  # stopped while loading: as wished
        try:
            logger.info("Shard ready in %.1fs", time.monotonic() - began)
            for line in plan_lines(self._client.info.memory):
                logger.info("%s", line)
            return await self._serve_http(service)
        finally:
            service.close()

    async def _load(self) -> Service:
        """Tokenizer and templates while the engine loads the weights: what is wrong shows early."""
        waiting = asyncio.create_task(self._say_still_waiting())
        service = None
        try:
            service = await asyncio.to_thread(self._load_service)
            await self._client.wait_ready()
            service.compare_with_model()
            if not self._api.disable_grammar_support:
                try:
                    await service.grammars()
                except Exception:
                    logger.exception("Grammars cannot be used with this tokenizer")
            return service
        except StartupError:
            self._engine_failed = service is not None
            if self._engine_failed:
                logger.error("Shard 0 failed to start")
            raise
        finally:
            waiting.cancel()

    def _load_service(self) -> Service:
        """With the HTTP stack, whose imports take half a second: while the engine imports torch."""
        from tgi.serving.service import Service

        importlib.import_module("tgi.api.app")

        return Service.load(self._api, self._client)

    async def _say_still_waiting(self) -> None:
        await asyncio.sleep(FIRST_WAITING_S)
        while True:
            logger.info("Waiting for shard to be ready... (%s)", waits_for(self._client.loading))
            await asyncio.sleep(STILL_WAITING_S)

    async def _unless_stopped(self, task: asyncio.Task[Service]) -> Service | None:
        """The task's result, or None when a signal comes first."""
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            return task.result()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return None

    async def _serve_http(self, service: Service) -> int:
        from tgi.api.app import create_app  # long imported, see `_load_service`

        logger.info("Starting Webserver")
        info = self._client.info
        self._say_limits(info)
        metrics = Metrics.for_engine(info)
        app = create_app(service, self._api, metrics=metrics, tracer=self._tracer)
        status = StatusLine(info.num_blocks, lambda: app.state.api.waiting)

        def on_step(stats: StepStats) -> None:
            app.state.api.observe_step(stats)
            status.observe(stats)

        self._client.on_step = on_step
        self._client.on_begun = app.state.api.history.begun
        self._client.on_first_token = app.state.api.history.got_first_token
        server = HttpServer(app, self._api, self._say_connected)
        collector.settle()
        self._serving = True
        serving = asyncio.create_task(server.serve([self._socket]), name="http")
        interval = self._api.status_interval_s
        telling = asyncio.create_task(status.run(interval), name="status") if interval else None
        try:
            return await self._until_end(app, serving)
        finally:
            if telling is not None:
                telling.cancel()
            await self._end_http(server, serving)
            await self._within(TRACES_OUT_S, asyncio.to_thread(self._tracer.shutdown))
            logger.info("webserver terminated")

    async def _end_http(self, server: HttpServer, serving: asyncio.Task[None]) -> None:
        """Let the web server send what is on its way, but not to readers that make everybody wait."""
        server.should_exit = True
        await self._within(CLOSE_S, serving)
        if not serving.done():
            server.force_exit = True
            await asyncio.wait({serving}, timeout=LATE_S)
            serving.cancel()

    async def _within(self, seconds: float, work: Awaitable[object]) -> None:
        """Wait for `work` for so long, or less once time is over."""
        task = asyncio.ensure_future(work)
        if not self._abort.is_set():
            await _first(task, self._abort.wait(), asyncio.sleep(seconds))
        await asyncio.wait({task}, timeout=LATE_S if self._abort.is_set() else 0)

    async def _until_end(self, app: Starlette, serving: asyncio.Task[None]) -> int:
        """Wait for the first reason to end, then bring every open request to its last event."""
        await _first(self._stop.wait(), self._engine_gone.wait(), serving)
        if serving.done():
            serving.result()  # raises when the port could not be opened
            logger.error("Webserver Crashed")
            raise WebserverError("the web server ended by itself")
        if self._stop.is_set():
            logger.info("Terminating webserver")
            router_logger.info("signal received, starting graceful shutdown")
            logger.info("Waiting for webserver to gracefully shutdown")
            if self._client.open_requests:
                logger.info(
                    "Waiting up to %.0f s for %d requests to end; a second signal ends them now",
                    *(self._api.graceful_termination_s, self._client.open_requests),
                )
            drain = asyncio.ensure_future(app.state.drain(self._api.graceful_termination_s))
            await _first(drain, self._abort.wait(), self._engine_gone.wait())
            if drain.done() and drain.result():
                return 0
            drain.cancel()
            self._abort.set()
            logger.warning("Ending requests that are still running")
            self._client.engine_lost("the server is shutting down")
        crashed = not self._stop.is_set()
        if crashed:
            logger.error("Shard 0 crashed")
        await self._within(EVENTS_OUT_S, app.state.drain(EVENTS_OUT_S))  # every open request now gets its last event
        if crashed:
            await _first(asyncio.sleep(LINGER_S), self._stop.wait())
        if self._engine_gone.is_set() and not self._engine_was_stopped:
            raise EngineDiedError(self._engine_end)
        return 0

    def _say_limits(self, info: EngineInfo) -> None:
        # TGI's router says this here; our engine has done so before it was ready.
        router_logger.info("Warming up model")
        router_logger.info("Setting max batch total tokens to %d", info.max_batch_total_tokens)
        router_logger.info("Using backend V3")
        if self._engine.max_input_tokens is None:
            router_logger.info("Maximum input tokens defaulted to %d", info.max_input_tokens)
        if self._engine.max_total_tokens is None:
            router_logger.info("Maximum total tokens defaulted to %d", info.max_total_tokens)
        sha = self._api.model_sha or "(local)"
        router_logger.info("Serving revision %s of model %s", sha, self._api.model_id)

    def _say_connected(self) -> None:
        host = f"[{self._api.hostname}]" if ":" in self._api.hostname else self._api.hostname
        shown = "127.0.0.1" if host == "0.0.0.0" else host
        port = self._socket.getsockname()[1]  # --port 0 means any that is free
        router_logger.info("Listening on %s port %d: http://%s:%d/docs", host, port, shown, port)
        if not self._api.disable_playground:
            router_logger.info("Playground: http://%s:%d", shown, port)
        router_logger.info("Connected")


async def _first(*awaitables: object) -> None:
    """Wait until the first of them is done; the others that were not tasks before are cancelled."""
    tasks = {item if isinstance(item, asyncio.Future) else asyncio.ensure_future(item) for item in awaitables}  # type: ignore[call-overload]
    ours = tasks - {item for item in awaitables if isinstance(item, asyncio.Future)}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in ours:
            task.cancel()
