"""A replica as the router sees it: its address, its models, its state, and the heartbeat that tells them.

Owns what silence means. A replica that refuses connections or says that it is not healthy gets nothing new from then
on, and one that is silent for `SILENT_S` neither; after `LOST_S` its open answers are given up too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from tgi.heartbeat import OVERDUE_S
from tgi.replicas.figures import Figures
from tgi.replicas.upstream import Pool, UpstreamError

logger = logging.getLogger("tgi.replicas")

BEAT_S = 0.5
BEATS_A_SECOND = 400
"""Of all replicas together, at most: with more than 200 of them each is asked less often."""
SILENT_S = 2.0
LOST_S = OVERDUE_S
LARGEST_ANSWER = 4 << 20


class Said(msgspec.Struct):
    """What `/health?verbose=1` says; other servers and older versions say less."""

    running: int = 0
    waiting: int = 0
    queued_tokens: int = 0
    cache_usage: float = 0.0
    cache_tokens: int = 0
    computed_tokens: int = 0
    prefix_query_tokens: int = 0
    prefix_hit_tokens: int = 0
    error: str | None = None


class Model(msgspec.Struct):
    """An entry of `/v1/models`."""

    id: str


class Models(msgspec.Struct):
    """`/v1/models`, each entry also as it came."""

    data: list[msgspec.Raw] = []


class Replica:
    """One server."""

    def __init__(self, number: int, url: str) -> None:
        self.number = number
        self.pool = Pool(url)
        self.url = self.pool.url
        self.state = "unknown"
        """up, or why it is not used: unknown, refused, silent, unhealthy."""
        self.models: dict[str, Any] = {}
        """Names -> entries of /v1/models; the first is the model's own."""
        self.introduced = False
        """`models` is what it serves; else it has been away, and may come back with another model."""
        self.said = Said()
        self.last_seen = 0.0
        self.draining = False
        """It is about to go: it gets nothing new."""
        self.open = 0
        """Requests that were sent there and are not answered whole."""
        self.life = 0
        """Counts how often it came back."""

    @property
    def up(self) -> bool:
        return self.state == "up" and self.introduced and not self.draining

    def set_state(self, state: str) -> None:
        if state != self.state:
            level = logging.INFO if state == "up" else logging.WARNING
            logger.log(level, "Replica %s is %s", self.url, state)
            self.state = state
            self.life += state == "up"

    async def get(self, path: str, patience_s: float) -> tuple[int, bytes]:
        """A small answer. Raises UpstreamError, TimeoutError."""
        async with asyncio.timeout(patience_s):
            connection = await self.pool.connect()
            try:
                head = await connection.ask("GET", path.encode(), [(b"host", self.pool.netloc)], b"")
                body = bytearray()
                async for piece in connection.body():
                    body += piece
                    if len(body) > LARGEST_ANSWER:
                        raise UpstreamError("the answer is too large")
                return head.status, bytes(body)
            finally:
                self.pool.give_back(connection)


class Heartbeat:
    """Asks one replica again and again; `on_news` hears of every answer and every change."""

    def __init__(
        self, replica: Replica, interval_s: Callable[[], float], on_news: Callable[[Replica, Figures | None], None]
    ) -> None:
        self._replica = replica
        self._interval_s = interval_s
        self._on_news = on_news
        self._soon = asyncio.Event()

    def hurry(self) -> None:
        """Something went wrong there: ask now."""
        self._soon.set()

    async def run(self) -> None:
        replica = self._replica
        replica.last_seen = time.monotonic()
        while True:
            figures = await self._beat()
            self._on_news(replica, figures)
            if replica.state == "silent" and time.monotonic() - replica.last_seen > LOST_S:
                replica.pool.abort()
            self._soon.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s()):
                    await self._soon.wait()
                await asyncio.sleep(min(self._interval_s(), 0.1))

    async def _beat(self) -> Figures | None:
        replica = self._replica
        try:
            status, body = await replica.get("/health?verbose=1", SILENT_S)
            if status == 200 and not replica.introduced:
                await self._introduce()
        except TimeoutError:
            replica.set_state("silent")
            return None
        except UpstreamError as error:
            if not error.reused:
                replica.set_state("refused")
                replica.introduced = False
            return None
        replica.last_seen = time.monotonic()
        if status != 200:
            replica.set_state("unhealthy")
            return None
        replica.set_state("up")
        with contextlib.suppress(msgspec.MsgspecError):
            replica.said = msgspec.json.decode(body, type=Said)
        said = replica.said
        return Figures(
            said.running,
            said.waiting,
            said.queued_tokens,
            said.cache_usage,
            said.cache_tokens,
            said.computed_tokens,
        )

    async def _introduce(self) -> None:
        status, body = await self._replica.get("/v1/models", SILENT_S)
        if status == 200:
            with contextlib.suppress(msgspec.MsgspecError):
                found = msgspec.json.decode(body, type=Models).data
                self._replica.models = {msgspec.json.decode(one, type=Model).id: one for one in found}
                self._replica.introduced = bool(self._replica.models)


def interval_s(replicas: int) -> float:
    """Seconds between two questions to each replica."""
    return max(BEAT_S, replicas / BEATS_A_SECOND)
