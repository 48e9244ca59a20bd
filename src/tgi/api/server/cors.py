"""Cross-origin headers: TGI's, and leave to send the headers that a page wants to send and to read all of ours.

Owns every OPTIONS answer and the three headers on all others. TGI's layer is open by default, as here, but
allows `content-type` alone, so that no page can send an API key. The outermost layer of the application.
"""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

VARY = (b"vary", b"origin, access-control-request-method, access-control-request-headers")
METHODS = (b"access-control-allow-methods", b"GET,POST,DELETE")
ALWAYS_ALLOWED = (b"content-type", b"authorization", b"x-api-key")
EXPOSED = (b"access-control-expose-headers", b"*")
"""Pages may read `retry-after`, `x-request-id` and `x-tgi-ignored`, as other clients do."""
MOST_HEADERS = 64
"""Requested headers that are allowed by name, at most: no page sends more, and the answer stays short."""
_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]{1,128}")


class Cors:
    """Pure ASGI; adds three headers and no task."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...] = ()) -> None:
        """`origins`: those allowed; empty or `*`: all."""
        self._app = app
        self._all = not origins or "*" in origins
        self._origins = frozenset(origin.encode("latin-1", "replace") for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = self._headers(scope)
        if scope["method"] == "OPTIONS":
            headers += [METHODS, _allowed_headers(scope), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return None

        headers.append(EXPOSED)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *headers]
            await send(message)

        return await self._app(scope, receive, with_headers)

    def _headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        if self._all:
            return [VARY, (b"access-control-allow-origin", b"*")]
        origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
        return [VARY, (b"access-control-allow-origin", origin)] if origin in self._origins and origin else [VARY]


def _allowed_headers(scope: Scope) -> tuple[bytes, bytes]:
    """By name, since browsers do not take `*` for `authorization` nor for requests with credentials."""
    names = dict.fromkeys(ALWAYS_ALLOWED)
    for header, value in scope["headers"]:
        if header == b"access-control-request-headers":
            wanted = (name.strip().lower() for name in value.split(b","))
            names |= dict.fromkeys(name for name in wanted if _HEADER_NAME.fullmatch(name))
    return b"access-control-allow-headers", b",".join(list(names)[:MOST_HEADERS])
