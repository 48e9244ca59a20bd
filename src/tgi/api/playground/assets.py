"""The built files of the pages: read once, hashed, compressed, and how browsers may keep and use them.

Owns `static/`, which `make web` builds from `web/`, and the Content-Security-Policy. Knows nothing of routes.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import xxhash
from starlette.datastructures import Headers
from starlette.responses import Response

TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
"""Nothing inline, nothing from elsewhere, nothing sent elsewhere."""
SECURITY = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
SMALLEST_COMPRESSED = 1_000
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent."""

    content: bytes
    compressed: bytes | None
    """With gzip; None where that would gain nothing."""
    media_type: str
    etag: str


@cache
def asset(name: str) -> Asset | None:
    """A built file by its name; None: there is none."""
    path = _files().get(name)
    if path is None:
        return None
    content = path.read_bytes()
    small = gzip.compress(content, mtime=0) if len(content) >= SMALLEST_COMPRESSED else None
    return Asset(content, small, TYPES[name.rsplit(".", 1)[-1]], f'"{xxhash.xxh3_64_hexdigest(content)}"')


def answer(found: Asset, headers: Headers, *, immutable: bool) -> Response:
    """The file, or 304 for who has it. `immutable`: its name changes with its content."""
    sent = {
        **SECURITY,
        "etag": found.etag,
        "cache-control": "public, max-age=31536000, immutable" if immutable else "no-cache",
        "vary": "accept, accept-encoding",
    }
    known = [tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")]
    if found.etag in known:
        return Response(status_code=304, headers=sent)
    content = found.content
    if found.compressed is not None and "gzip" in headers.get("accept-encoding", ""):
        content, sent["content-encoding"] = found.compressed, "gzip"
    return Response(content, media_type=found.media_type, headers=sent)


@cache
def _files() -> dict[str, Traversable]:
    """All built files by name, pages and what they load: a request can name no other."""
    pages = files("tgi.api.playground").joinpath("static")
    entries = [*pages.iterdir(), *pages.joinpath("playground").iterdir()]
    return {entry.name: entry for entry in entries if entry.name.rsplit(".", 1)[-1] in TYPES}
