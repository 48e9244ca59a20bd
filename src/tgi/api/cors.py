"""Cross-origin headers, as TGI sends them.

Owns every OPTIONS answer and the two headers on all others. TGI's layer is open by default and does
not allow the `authorization` header. The outermost layer, put on by `app`.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

VARY = (b"vary", b"origin, access-control-request-method, access-control-request-headers")
PREFLIGHT = [(b"access-control-allow-methods", b"GET,POST"), (b"access-control-allow-headers", b"content-type")]


class Cors:
    """Pure ASGI; adds two headers and no task."""

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
            length = [(b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 200, "headers": headers + PREFLIGHT + length})
            await send({"type": "http.response.body", "body": b""})
            return None

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
