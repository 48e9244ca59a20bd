"""An answer that is not a stream of events, written no faster than its reader takes it.

Owns the pieces in which it goes out and the patience with its reader. A large answer holds its permits until
its last piece is written, so that what waits for slow readers is bounded by the permits. Made by `call`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TypeAlias

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tgi.api.wire.streaming import ClientGone, until_gone

PIECE_BYTES = 65_536
WRITE_TIMEOUT_S = 60.0
"""For one piece: a reader that takes less is treated as gone."""

Content: TypeAlias = bytes | Sequence[bytes] | AsyncGenerator[bytes, None]
"""All of it, all in pieces, or pieces as they come (then its length is not known before)."""


class Answer(Response):
    """JSON of known or unknown length."""

    def __init__(self, content: Content, headers: Mapping[str, str], on_end: Callable[[bool], None]) -> None:
        """`on_end` is called once, before the last piece goes out, with whether the client left early."""
        if isinstance(content, bytes):
            content = [content]
        size = sum(map(len, content)) if isinstance(content, Sequence) else math.inf
        whole = b"".join(content) if isinstance(content, Sequence) and size <= PIECE_BYTES else None
        super().__init__(whole or b"", headers=headers, media_type="application/json")
        self._content = content
        self._small = whole is not None
        self._on_end = on_end
        self._ended = False
        if size == math.inf:
            del self.headers["content-length"]
        else:
            self.headers["content-length"] = str(size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._small:
            self._end(left_early=False)
            await super().__call__(scope, receive, send)
            return
        left_early = True
        try:
            await until_gone(receive, self._send_all(send))
            left_early = False
        except (ClientGone, TimeoutError):
            pass  # the server cuts off who is left with half an answer
        finally:
            self._end(left_early)

    def _end(self, left_early: bool) -> None:
        if not self._ended:
            self._ended = True
            self._on_end(left_early)

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._pieces()) as pieces:
            waiting = b""
            async for piece in pieces:
                if waiting:
                    await self._write(send, waiting, more=True)
                waiting = piece
        self._end(left_early=False)
        await self._write(send, waiting, more=False)

    async def _write(self, send: Send, piece: bytes, *, more: bool) -> None:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        content = self._content
        async with aclosing(_each(content) if isinstance(content, Sequence) else content) as parts:
            async for part in parts:
                for begin in range(0, len(part), PIECE_BYTES):
                    yield part[begin : begin + PIECE_BYTES]


async def _each(content: Sequence[bytes]) -> AsyncGenerator[bytes, None]:
    """The pieces; short ones that follow each other are put together."""
    together: list[bytes] = []
    size = 0
    for part in content:
        together.append(part)
        size += len(part)
        if size >= PIECE_BYTES:
            yield b"".join(together)
            together, size = [], 0
    yield b"".join(together)
