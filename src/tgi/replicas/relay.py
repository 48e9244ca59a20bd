"""One request on its way to a replica and its answer on the way back, byte for byte.

Owns retries, what is said when all replicas are full, and the last event of a stream whose replica is gone. A request
of which no byte was answered goes to another replica, once; refusals (429, 503) and addresses where nobody listens
do not count for that, since nothing was begun there.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from starlette.types import Scope, Send

from tgi.api.wire.forms import form_of
from tgi.api.wire.streaming import WRITE_TIMEOUT_S, ClientGone, error_event
from tgi.errors import ENGINE_HEADER, GenerationError, OverloadedError, UnhealthyError
from tgi.replicas.choice import Ask, Chooser
from tgi.replicas.figures import Sent
from tgi.replicas.models import Model
from tgi.replicas.replica import Replica
from tgi.replicas.roster import Roster
from tgi.replicas.router_metrics import RouterMetrics
from tgi.replicas.starts import Starts
from tgi.replicas.upstream import Connection, Head, UpstreamError

logger = logging.getLogger("tgi.replicas")

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect")
)
"""Headers that belong to one connection."""
OURS = HOP_BY_HOP | {b"date"}
"""Headers of answers that our HTTP server writes itself."""
FULL_S = 1.0
"""A replica that was full is not asked again for so long at most: it says when, but may have room earlier."""
MOST_REFUSALS = 3
REFUSAL_BYTES = 1 << 16
WAITED = "x-tgi-waited"
"""Seconds that a request waited for a replica to start; a header of its answer."""
END_OF_EVENT = b"\n\n"


@dataclass(slots=True)
class Request:
    """What is sent on."""

    scope: Scope
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    ask: Ask
    model: Model
    arrived: float
    request_id: bytes
    seek: bool = False
    """It concerns something that one of the replicas keeps: a 404 of one is no answer of all."""


@dataclass(slots=True)
class _Tries:
    """What was tried for a request."""

    replicas: dict[Replica, int] = field(default_factory=dict)
    """With the life that each was in: one that went and came back may be asked again."""
    failed: bool = False
    """A replica had it and broke."""
    refusals: int = 0
    back_in_s: float = math.inf
    """The earliest time that a full replica named."""
    waited_s: float | None = None
    """For a replica to start; None: there was one."""


class Relay:
    """Sends requests on; shared by all of them."""

    def __init__(self, roster: Roster, chooser: Chooser, metrics: RouterMetrics, starts: Starts) -> None:
        self._roster = roster
        self._chooser = chooser
        self._metrics = metrics
        self._starts = starts

    async def answer(self, request: Request, send: Send) -> None:
        """Raises OverloadedError, UnhealthyError, GenerationError while nothing is sent yet."""
        tries = _Tries()
        while True:
            choice = self._chooser.choose(request.ask, self._allowed(request, tries))
            if choice is None:
                if await self._wait(request, tries):
                    continue
                raise self._nobody(request, tries)
            replica, sent = self._roster[choice.replica], choice.sent
            tries.replicas[replica] = replica.life
            replica.open += 1
            self._metrics.choices.labels(replica.url).inc()
            try:
                if await self._try(request, tries, replica, sent, send):
                    self._metrics.prompt_bytes.inc(request.ask.blocks.size)
                    self._metrics.expected_bytes.inc(choice.expected)
                    return
            finally:
                replica.open -= 1
                self._chooser.fleet.ended(sent)
                self._roster.ended(replica)

    async def _wait(self, request: Request, tries: _Tries) -> bool:
        """Whether there is a replica now, after none could be used. Full ones are not waited for."""
        if tries.refusals or self._full(request, time.monotonic()).any():
            return False
        began = time.monotonic()
        spent = tries.waited_s or 0.0
        found = await self._starts.wait(request.model.name, lambda: bool(self._allowed(request, tries).any()), spent)
        if found or self._starts.longest_s:
            tries.waited_s = spent + time.monotonic() - began
            if found:
                logger.info("Request %s waited %.1f s for a replica", _name(request), tries.waited_s)
            self._metrics.waits.labels("started" if found else "in vain").inc()
        return found

    def _allowed(self, request: Request, tries: _Tries) -> np.ndarray:
        fleet = self._chooser.fleet
        allowed = request.model.usable(len(fleet)) & (fleet.full_until <= time.monotonic())
        for replica, life in tries.replicas.items():
            if replica.life == life and replica in self._roster:
                allowed[replica.number] = False
        return allowed

    def _full(self, request: Request, now: float) -> np.ndarray:
        """Replicas that have said when they have room again."""
        fleet = self._chooser.fleet
        return request.model.usable(len(fleet)) & (fleet.full_until > now) & np.isfinite(fleet.back_at)

    def _nobody(self, request: Request, tries: _Tries) -> OverloadedError | UnhealthyError | GenerationError:
        now = time.monotonic()
        full = self._full(request, now)
        if tries.refusals or full.any():
            return _overloaded(min([tries.back_in_s, *(self._chooser.fleet.back_at[full] - now)]))
        if tries.failed:
            return GenerationError("the replica that had the request was lost")
        unhealthy = UnhealthyError(f"No replica of `{request.model.name}` can be used now")
        unhealthy.headers["retry-after"] = "1"
        if tries.waited_s is not None:
            unhealthy.headers[WAITED] = f"{tries.waited_s:.2f}"
        return unhealthy

    async def _try(self, request: Request, tries: _Tries, replica: Replica, sent: Sent, send: Send) -> bool:
        """Whether it is answered; if not, another replica is to be tried."""
        try:
            connection, head = await self._begin(request, tries, replica)
        except UpstreamError as error:
            self._note_failure(request, tries, replica, error)
            return False
        try:
            if head.status in (429, 503) and not tries.failed:
                return await self._refused(tries, replica, head, connection)
            if head.get(ENGINE_HEADER.encode()) == b"lost" and not tries.failed:
                return self._engine_lost(request, tries, replica)
            if head.status == 404 and request.seek and self._allowed(request, tries).any():
                return False
            return await self._pass_on(request, tries, replica, sent, connection, head, send)
        finally:
            replica.pool.give_back(connection)

    async def _begin(self, request: Request, tries: _Tries, replica: Replica) -> tuple[Connection, Head]:
        """Until the head of the answer. Raises UpstreamError."""
        connection = await replica.pool.connect(fresh=tries.failed)
        try:
            method = request.scope["method"]
            return connection, await connection.ask(method, request.target, request.headers, request.body)
        except BaseException:
            replica.pool.drop(connection)
            raise

    def _note_failure(self, request: Request, tries: _Tries, replica: Replica, error: UpstreamError) -> None:
        """Raises GenerationError if the request may not be sent again."""
        logger.warning("Replica %s: %s (request %s)", replica.url, error, _name(request))
        self._roster.hurry(replica)
        if not error.begun:
            self._unavailable(replica, "unreachable")
            return
        if tries.failed:
            self._metrics.failures.labels("lost").inc()
            raise GenerationError("two replicas that had the request were lost")
        tries.failed = True
        self._metrics.retries.labels("closed" if error.reused else "lost").inc()
        if error.reused and not self._allowed(request, tries).any():
            tries.replicas.pop(replica, None)  # it may just have closed an idle connection

    def _engine_lost(self, request: Request, tries: _Tries, replica: Replica) -> bool:
        """Its server lives and says that nothing was begun: False, as of a replica that was lost."""
        logger.warning("Replica %s has lost its engine (request %s)", replica.url, _name(request))
        self._roster.hurry(replica)
        tries.failed = True
        self._metrics.retries.labels("lost").inc()
        return False

    def _unavailable(self, replica: Replica, reason: str) -> None:
        """It is left alone until its heartbeat tells more."""
        self._chooser.fleet.full_until[replica.number] = time.monotonic() + FULL_S / 2
        self._chooser.fleet.back_at[replica.number] = math.inf
        self._metrics.retries.labels(reason).inc()

    async def _refused(self, tries: _Tries, replica: Replica, head: Head, connection: Connection) -> bool:
        """The replica takes nothing now: False, or OverloadedError after a few of them."""
        size = 0
        async for piece in connection.body():
            size += len(piece)
            if size > REFUSAL_BYTES:
                break
        if head.status == 503:
            self._roster.hurry(replica)
            self._unavailable(replica, "unavailable")
            return False
        seconds = _retry_after(head)
        now = time.monotonic()
        self._chooser.fleet.back_at[replica.number] = now + seconds
        self._chooser.fleet.full_until[replica.number] = now + min(seconds, FULL_S)
        tries.refusals += 1
        tries.back_in_s = min(tries.back_in_s, seconds)
        self._metrics.retries.labels("full").inc()
        if tries.refusals >= MOST_REFUSALS:
            raise _overloaded(tries.back_in_s)
        return False

    async def _pass_on(
        self,
        request: Request,
        tries: _Tries,
        replica: Replica,
        sent: Sent,
        connection: Connection,
        head: Head,
        send: Send,
    ) -> bool:
        """The answer as it comes. False: its replica was lost before its first byte."""
        streams = (head.get(b"content-type") or b"").startswith(b"text/event-stream")
        begun = False
        held = b""

        async def write(data: bytes, more: bool = True) -> None:
            nonlocal begun
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    if not begun:
                        begun = True
                        self._metrics.added.observe(time.monotonic() - max(connection.last_byte, request.arrived))
                        await send(_start(request, tries, replica, head))
                    await send({"type": "http.response.body", "body": data, "more_body": more})
            except TimeoutError:
                raise ClientGone from None

        try:
            async for piece in connection.body():
                self._chooser.fleet.began(sent)
                if streams:
                    piece, held = _whole_events(held + piece)
                if piece:
                    await write(piece)
            await write(held, more=False)
        except UpstreamError as error:
            self._roster.hurry(replica)
            if not begun and not tries.failed:
                tries.failed = True
                self._metrics.retries.labels("lost").inc()
                return False
            self._metrics.failures.labels("lost").inc()
            logger.warning("Replica %s: %s (request %s)", replica.url, error, _name(request))
            lost = GenerationError("the replica that had the request was lost")
            if not begun:
                raise lost from None
            if not streams:
                raise ClientGone from None  # our server closes the connection: a cut answer must not look whole
            await write(error_event(lost, request.scope) + form_of(request.scope).end, more=False)
        return True


def _overloaded(seconds: float) -> OverloadedError:
    """All replicas are full; seconds: when the first of them has room again."""
    milliseconds = max(round(seconds * 1000), 1)
    error = OverloadedError()
    error.headers["retry-after"] = str(math.ceil(milliseconds / 1000))
    error.headers["retry-after-ms"] = str(milliseconds)
    return error


def _name(request: Request) -> str:
    return request.request_id.decode("latin-1")


def _start(request: Request, tries: _Tries, replica: Replica, head: Head) -> dict[str, object]:
    headers = [(name, value) for name, value in head.headers if name not in OURS]
    headers.append((b"x-tgi-replica", replica.pool.netloc))
    if tries.waited_s is not None:
        headers.append((WAITED.encode(), f"{tries.waited_s:.2f}".encode()))
    if head.get(b"x-request-id") is None:
        headers.append((b"x-request-id", request.request_id))
    return {"type": "http.response.start", "status": head.status, "headers": headers}


def _whole_events(data: bytes) -> tuple[bytes, bytes]:
    """What may be passed on, and the beginning of an event whose end has not come: half an event helps nobody."""
    if data.endswith(END_OF_EVENT):
        return data, b""
    end = data.rfind(END_OF_EVENT)
    return (b"", data) if end < 0 else (data[: end + 2], data[end + 2 :])


def _retry_after(head: Head) -> float:
    """Seconds, of either header; 1 where it says nothing that can be read."""
    for name, unit in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        value = head.get(name) or b""
        if value.isdigit() and len(value) < 10:
            return int(value) * unit
    return 1.0
