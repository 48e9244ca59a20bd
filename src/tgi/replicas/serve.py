"""One run of the router: HTTP in this process, the heartbeat beside it, from start to clean end.

first signal   /health says 503, so that load balancers turn away; open answers finish within the graceful timeout
second signal  all ends at once
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from tgi.launcher import signals
from tgi.launcher.http_server import HttpServer, bind
from tgi.replicas.router import Router
from tgi.settings.config import ApiConfig

logger = logging.getLogger("tgi.replicas")

Following = Callable[[Router], Coroutine[Any, Any, None]]


def serve(router: Router, hostname: str, port: int, graceful_s: float, following: Following | None = None) -> int:
    """Until a signal; gives the exit status. following: keeps the list of replicas. Raises PortError."""
    sock = bind(hostname, port)
    try:
        config = ApiConfig("router", "", hostname=hostname, port=port)
        return uvloop.run(_run(router, config, sock, graceful_s, following))
    finally:
        sock.close()


async def _run(
    router: Router, config: ApiConfig, sock: socket.socket, graceful_s: float, following: Following | None
) -> int:
    loop = asyncio.get_running_loop()
    stop, now = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (now if stop.is_set() else stop).set()

    def say_open() -> None:
        host = f"[{config.hostname}]" if ":" in config.hostname else config.hostname
        logger.info("Routing on http://%s:%d to %d replicas", host, sock.getsockname()[1], len(router.replicas))

    numbers = signals.numbers()
    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    server = HttpServer(router, config, say_open)
    serving = asyncio.create_task(server.serve([sock]))
    own = [serving, asyncio.create_task(router.run())]
    if following is not None:
        own.append(asyncio.create_task(following(router)))
    try:
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, *own}, return_when=asyncio.FIRST_COMPLETED)
        for task in own:
            if task.done():
                task.result()  # raises
        logger.info("Ending: %d requests are open", router.open_requests)
        ends = [asyncio.create_task(router.drain()), asyncio.create_task(now.wait())]
        await asyncio.wait(ends, timeout=graceful_s, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()
    finally:
        server.should_exit = True
        server.force_exit = now.is_set() or router.open_requests > 0
        await asyncio.wait({serving}, timeout=1.0 if server.force_exit else 6.0)
        for task in own:
            task.cancel()
        for number in numbers:
            loop.remove_signal_handler(number)
        signals.ignore()
    return 0
