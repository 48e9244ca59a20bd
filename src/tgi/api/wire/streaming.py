"""Server-sent events, and noticing that a client has left.

Owns the framing, the keep-alive comment, joining events for slow readers, the last event when
something fails, and the end of work nobody waits for. Does not own what an event says (routes do).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tgi.api.wire.errors import IncompleteStreamError, InternalError, error_response
from tgi.api.wire.forms import Form, form_of
from tgi.errors import IncompleteGenerationError, TgiError

logger = logging.getLogger("tgi.api")

KEEP_ALIVE_S = 15.0
WRITE_TIMEOUT_S = 60.0
"""A reader that takes nothing for so long is treated as gone."""
SHORTEST_WATCH_S = 1.0
COMMENT = b":\n\n"
"""What keeps a silent connection alive (TGI's). Clients that strip every piece they receive, as vLLM's benchmark
does, lose the end of a comment that comes alone, and would take the next event for a part of it: so the next
event is sent with another comment before it, in one piece, which ends the first."""
LINE_ENDS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
"""Ends of lines to `str.splitlines` and so to httpx, though not to JSON nor to the standard of event streams."""

_encoder = msgspec.json.Encoder()
Result = TypeVar("Result")


class ClientGone(Exception):
    """The client closed the connection before its answer was ready."""


def event(payload: Any) -> bytes:
    """One event: `data: {json}` and an empty line. NaN and infinities become null."""
    return encoded_event(_encoder.encode(payload))


def encoded_event(data: bytes, name: bytes = b"") -> bytes:
    """One event of JSON, under a name if it has one."""
    if not data.isascii():
        for character, escaped in LINE_ENDS:
            data = data.replace(character, escaped)
    return (b"event: " + name + b"\ndata: " if name else b"data: ") + data + b"\n\n"


def named_event(payload: msgspec.Struct) -> bytes:
    """As `event`, under the name that is the payload's tag."""
    return encoded_event(_encoder.encode(payload), str(payload.__struct_config__.tag).encode())


def error_event(error: TgiError, scope: Scope) -> bytes:
    """The last event of a stream that failed."""
    form = form_of(scope)
    return encoded_event(_encoder.encode(form.content(error, scope)), form.event_name)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stop(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until_gone(receive: Receive, work: Awaitable[Result]) -> Result:
    """The result of `work`; cancels it and raises ClientGone when the client leaves first."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        await _stop(working, watching)


async def merge(streams: Sequence[AsyncGenerator[Result, None]]) -> AsyncGenerator[Result, None]:
    """The items of several generators as they come. The first failure ends all; so does closing."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield item
        return
    # One place each: a slow reader holds the streams up, and what they have then comes in larger pieces.
    ready: asyncio.Queue[tuple[list[Result], Exception | None, bool]] = asyncio.Queue(maxsize=len(streams))

    async def pump(stream: AsyncGenerator[Result, None]) -> None:
        failure: Exception | None = None
        try:
            async with aclosing(stream) as items:
                async for item in items:
                    await ready.put(([item], None, False))
        except Exception as error:
            failure = error
        await ready.put(([], failure, True))

    tasks = [asyncio.create_task(pump(stream)) for stream in streams]
    running = len(tasks)
    try:
        while running:
            items, failure, ended = await ready.get()
            if failure is not None:
                raise failure
            running -= ended
            for item in items:
                yield item
    finally:
        await _stop(*tasks)


async def together(works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All results in order; the first failure, or being cancelled, cancels the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _stop(*tasks)


class EventStream(Response):
    """Sends encoded events as they come, until they end or the client leaves.

    While a slow reader blocks the write, the engine client merges what comes meanwhile, so the next
    item of `events` holds several events and goes out in one piece.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
        *,
        form: Form,
        on_error: Callable[[TgiError], None],
        on_end: Callable[[bool], None],
        last_event: Callable[[TgiError], bytes] | None = None,
    ) -> None:
        """`last_event`: what ends a stream that has failed, where it is more than the error.

        `on_end` is called once, with whether the client left early: as soon as the last byte is written, so that who
        reads it and comes back finds what this stream held free."""
        self.status_code = 200
        self.background = None
        self.body = b""
        fixed = {"content-type": self.media_type, "cache-control": "no-cache", "x-accel-buffering": "no"}
        self.raw_headers = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in {**fixed, **headers}.items()
        ]
        self._events = events
        self._form = form
        self._last_event = last_event
        self._on_error = on_error
        self._on_end = on_end
        self._ended = False
        self._started = False
        self._writing = asyncio.Lock()
        self._given_up = False
        """A write was cancelled: nobody takes what would come after it."""
        self._commented = False
        """The last thing written was a comment."""
        self._last_write = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send_all(scope, receive, send))
        watching = asyncio.create_task(self._watch(receive, send))
        left_early = True
        try:
            await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
            left_early = not sending.done()
        finally:
            await _stop(sending, watching)
            self._end(left_early)
        if not left_early:
            sending.result()  # a mistake of ours while sending is not swallowed

    async def _send_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._send_events(scope, receive, send)
        self._end(left_early=False)  # here, and not some turns of the event loop later

    async def _send_events(self, scope: Scope, receive: Receive, send: Send) -> None:
        last = self._form.end
        try:
            async with aclosing(self._events) as events:
                async for chunk in events:
                    await self._write(send, chunk)
        except Exception as problem:
            error = self._answerable(problem)
            self._on_error(error)
            if self._form.refuses_streams and not self._started:
                await error_response(error, scope)(scope, receive, send)
                return
            if not self._started:
                self.raw_headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
            failed = error_event(error, scope) if self._last_event is None else self._last_event(error)
            last = failed + last
        await self._write(send, last, more=False)

    def _end(self, left_early: bool) -> None:
        if not self._ended:
            self._ended = True
            self._on_end(left_early)

    def _answerable(self, problem: Exception) -> TgiError:
        if isinstance(problem, IncompleteGenerationError) and self._form.words_cut_streams:
            return IncompleteStreamError()
        if isinstance(problem, TgiError):
            return problem
        logger.error("A stream failed unexpectedly", exc_info=problem)
        return InternalError()

    async def _write(self, send: Send, chunk: bytes, more: bool = True) -> None:
        """The head goes out with the first bytes, so that an error before them can still choose the status."""
        async with self._writing:
            if self._given_up:
                return
            self._given_up = True
            if self._commented and chunk and chunk != COMMENT:
                chunk = COMMENT + chunk
            self._commented = chunk == COMMENT or (self._commented and not chunk)
            if not self._started:
                self._started = True
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": chunk, "more_body": more})
            self._given_up = False
            self._last_write = time.monotonic()

    async def _watch(self, receive: Receive, send: Send) -> None:
        """Ends when the client has left or stopped reading; sends a comment when nothing else was sent."""
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            while True:
                silence = time.monotonic() - self._last_write
                await asyncio.wait((leaving,), timeout=max(KEEP_ALIVE_S - silence, SHORTEST_WATCH_S))
                silence = time.monotonic() - self._last_write
                if leaving.done() or (self._writing.locked() and silence >= WRITE_TIMEOUT_S):
                    return
                if not self._writing.locked() and silence >= KEEP_ALIVE_S:
                    async with asyncio.timeout(WRITE_TIMEOUT_S):
                        await self._write(send, COMMENT)
        except TimeoutError:
            return
        finally:
            await _stop(leaving)
