"""Where a router learns which replicas there are: a file, a name in the DNS, or whoever else can tell.

Owns what is believed. What cannot be read changes nothing: replicas that are there go on, and whether they answer is
the heartbeat's affair. An empty list is believed of a file, which somebody wrote so, and of nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tgi.errors import ArgumentError
from tgi.replicas.roster import Roster
from tgi.replicas.upstream import address

logger = logging.getLogger("tgi.replicas")

Source = Callable[[], Awaitable[Sequence[str]]]
"""Addresses of all replicas there are now. Raises DiscoveryError."""
EVERY_S = 1.0
LARGEST_FILE = 1 << 20


class DiscoveryError(Exception):
    """The list cannot be had now."""


def of_file(path: Path) -> Source:
    """One address a line; blank lines and those that begin with # do not count."""

    async def read() -> list[str]:
        try:
            with path.open() as file:
                text = file.read(LARGEST_FILE + 1)
        except (OSError, UnicodeError) as error:
            raise DiscoveryError(f"{path} cannot be read: {error}") from None
        if len(text) > LARGEST_FILE:
            raise DiscoveryError(f"{path} is larger than {LARGEST_FILE} bytes")
        lines = (line.strip() for line in text.splitlines())
        return [line for line in lines if line and not line.startswith("#")]

    return read


def of_name(url: str) -> Source:
    """All addresses of a name, such as that of a headless service of Kubernetes. Raises ArgumentError."""
    host, port = address(url)[1:]

    async def resolve() -> list[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise DiscoveryError(f"{host} cannot be resolved: {error.strerror or error}") from None
        addresses = sorted({entry[4][0] for entry in found})
        return [f"http://[{one}]:{port}" if ":" in str(one) else f"http://{one}:{port}" for one in addresses]

    return resolve


def source_of(word: str) -> Source:
    """What --discover names: an address whose name is looked up, or else a file. Raises ArgumentError."""
    if urlsplit(word).scheme == "http":
        return of_name(word)
    if not Path(word).is_file():
        raise ArgumentError(f"--discover {word}: expected a file, or an address such as http://tgi-servers:8080")
    return of_file(Path(word))


async def follow(roster: Roster, fixed: Sequence[str], sources: Sequence[Source], every_s: float = EVERY_S) -> None:
    """Keep the roster as the sources say, until cancelled; fixed: replicas that are always there."""
    known: list[Sequence[str]] = [()] * len(sources)
    troubles: list[str | None] = [None] * len(sources)
    while True:
        for number, source in enumerate(sources):
            trouble = None
            try:
                known[number] = _checked(await source())
            except DiscoveryError as error:
                trouble = str(error)
            if trouble is not None and trouble != troubles[number]:
                logger.warning("The list of replicas stays as it is: %s", trouble)
            troubles[number] = trouble
        wanted = [*fixed, *(url for urls in known for url in urls)]
        if all(trouble is None for trouble in troubles):
            roster.set(wanted)
        else:
            for url in wanted:
                roster.add(url)
        await asyncio.sleep(every_s)


def _checked(urls: Sequence[str]) -> list[str]:
    """The addresses in their one spelling. Raises DiscoveryError."""
    try:
        return [address(url)[0] for url in urls]
    except ArgumentError as error:
        raise DiscoveryError(str(error)) from None
