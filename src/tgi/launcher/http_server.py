"""uvicorn as this project runs it: on a socket that is bound early, inside an event loop of ours.

Owns the listening socket and uvicorn's settings. Signals and the order of shutdown belong to
`supervisor`.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from tgi.errors import PortError
from tgi.launcher.http_protocol import BoundedProtocol
from tgi.settings.config import ApiConfig

CLOSE_TIMEOUT_S = 5
"""Seconds that connections get to send the end of their answers once nothing new is generated."""
BACKLOG = 2048


def bind(hostname: str, port: int) -> socket.socket:
    """Take the port without listening yet: until `HttpServer` starts, connections are refused.

    Taken before the model is loaded, so that a port in use shows at once. Raises `PortError`.
    """
    family = socket.AF_INET6 if ":" in hostname else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((hostname, port))
    except OSError as error:
        sock.close()
        raise bind_error(error, hostname, port) from None
    return sock


def bind_error(error: OSError, hostname: str, port: int) -> PortError:
    """The sentence for a port that cannot be had."""
    where = f"{hostname}:{port}"
    if error.errno == errno.EADDRINUSE:
        return PortError(f"{where} is in use by another program: stop it, or choose another port with --port")
    if error.errno == errno.EACCES:
        return PortError(f"{where} needs more rights: choose a port above 1023 with --port")
    if error.errno == errno.EADDRNOTAVAIL:
        return PortError(f"{hostname} is not an address of this machine: check --hostname")
    return PortError(f"{where} cannot be listened on: {error.strerror}")


class HttpServer(uvicorn.Server):
    """Leaves signals alone and tells when the port is really open."""

    def __init__(self, app: Callable[..., Any], config: ApiConfig, on_open: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=CLOSE_TIMEOUT_S,
            )
        )
        self._api_config = config
        self._on_open = on_open

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:
            raise bind_error(error, self._api_config.hostname, self._api_config.port) from None
        self._on_open()
