"""A replica: an actor that has our ordinary server on a private address, and says in the directory where it is."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tgi import children
from tgi.hub import files
from tgi.ray.directory import SAY_EVERY_S
from tgi.ray.served import Served
from tgi.ray.server import Server
from tgi.replicas.replica import Said
from tgi.replicas.upstream import UpstreamError
from tgi.settings.config import read_environment

logger = logging.getLogger("tgi.ray")

DRAIN_S = 90.0
"""For open answers when a replica is taken away, unless --graceful-termination-timeout says otherwise."""
FETCHED_WITH = ("--revision=", "--huggingface-hub-cache=", "--trust-remote-code=")
"""Flags of a server that say which files are fetched, and where to."""
UNHEALTHY = 3
"""Failed checks after which Serve replaces a replica; its server is ended with the last of them."""


class Engine:
    """The class of a Serve deployment; `directory`: a handle of it."""

    async def __init__(self, served: Served, directory: Any, place: Mapping[str, Any]) -> None:
        """place: `host` to listen on, and what the table shows: `node` and `replica`."""
        variables = read_environment()
        self._served, self._directory, self._place = served, directory, dict(place)
        self._said = Said()
        self._failures = 0
        self._announcing: asyncio.Task[None] | None = None
        await asyncio.to_thread(fetch_once, served, variables)
        self._server = await Server.start(served.words, variables, self._place.pop("host"), served.keys)
        try:
            await self._server.ready()
        except BaseException:
            await self._server.kill()
            raise
        self._announcing = asyncio.create_task(self._announce())

    async def where(self) -> str:
        """Its address; a request for it is what starts the first replica."""
        return self._server.url

    async def check_health(self) -> None:
        """Asked by Serve. Raises UpstreamError."""
        try:
            self._said = await self._server.said()
            self._failures = 0
        except UpstreamError:
            self._failures += 1
            if self._failures == UNHEALTHY:
                await self._server.kill()
            raise

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Asked by Serve for `scaling.policy`."""
        said = self._said
        return {"running": said.running, "waiting": said.waiting, "cache_usage": said.cache_usage}

    async def _announce(self) -> None:
        served = self._served
        entry = {
            **self._place,
            "url": self._server.url,
            "model": served.name,
            "model_id": served.model_id,
            "revision": served.revision or "",
            "cpus": served.cpus,
            "gpus": served.gpus,
            "memory": served.memory,
            "pid": self._server.pid,
        }
        while True:
            with contextlib.suppress(UpstreamError):
                self._said = await self._server.said()
            try:
                await self._directory.announce.remote(entry)
            except Exception as error:  # it is restarted by Serve
                logger.warning("The directory of replicas cannot be reached: %s", error)
            await asyncio.sleep(SAY_EVERY_S)

    async def stop(self) -> None:
        """Serve takes the replica away: routers hear of it, open answers end, then the server does."""
        if self._announcing is None:
            return  # it never served
        self._announcing.cancel()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._directory.leave.remote(self._server.url), 2.0)
        await self._server.drain(drain_s(self._served))


def drain_s(served: Served) -> float:
    """Seconds that open answers have."""
    for word in reversed(served.words):
        if word.startswith("--graceful-termination-timeout="):
            return float(word.partition("=")[2])
    return DRAIN_S


def fetch_once(served: Served, variables: Mapping[str, str]) -> None:
    """Fetch the model's files if it is on the hub: one replica a node does, the others wait and find them.

    What goes wrong is said by the server, which looks for them again.
    """
    if not needs_fetch(served):
        return
    with _alone(served.slug):
        flags = [word for word in served.words if word.startswith(FETCHED_WITH)]
        command = children.python("tgi", "download-weights", served.model_id, *flags)
        with children.started(command, env=dict(variables), stdout=sys.stdout.fileno()) as child:
            child.wait()


def needs_fetch(served: Served) -> bool:
    """Whether the model is named by its place on the hub."""
    name = served.model_id
    return "/" in name and not name.startswith((".", "/", "~")) and files.directory(name) is None


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    path = Path(tempfile.gettempdir(), f"tgi-fetch-{os.geteuid()}-{name}.lock")
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
