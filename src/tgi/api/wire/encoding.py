"""Request bodies that come compressed.

Owns which content encodings are taken, and that what comes out is bounded, however little goes in.
"""

from __future__ import annotations

import zlib

from tgi.errors import MalformedRequestError

GZIP = frozenset({"gzip", "x-gzip"})
TAKEN = "gzip"
"""For the header `accept-encoding` of a refusal (RFC 9110, 15.5.16)."""
_GZIP_BITS = 16 + zlib.MAX_WBITS


class Plain:
    """A body that is what it is."""

    def decode(self, chunk: bytes) -> bytes:
        return chunk

    def end(self) -> None:
        """Nothing can be missing."""


class Gzip:
    """The text of a gzip stream, a piece at a time; at most `limit` bytes of it and one more."""

    def __init__(self, limit: int) -> None:
        self._left = limit + 1
        self._stream = zlib.decompressobj(_GZIP_BITS)

    def decode(self, chunk: bytes) -> bytes:
        """Raises MalformedRequestError for what is not gzip, and for data after its end."""
        if not self._left:
            return b""
        try:
            text = self._stream.decompress(chunk, self._left)
        except zlib.error:
            raise _damaged("it is not gzip") from None
        if self._stream.unused_data:
            raise _damaged("something follows its end")
        self._left -= len(text)
        return text

    def end(self) -> None:
        """Raises MalformedRequestError when the stream was cut."""
        if not self._stream.eof:
            raise _damaged("its end is missing")


def decoder(content_encoding: str, limit: int) -> Plain | Gzip:
    """For the header of a body; raises MalformedRequestError (415) that names an encoding that is not taken."""
    names = [name for part in content_encoding.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if not names:
        return Plain()
    if len(names) == 1 and names[0] in GZIP:
        return Gzip(limit)
    named = ", ".join(names)[:64].encode("unicode_escape").decode()
    error = MalformedRequestError(f"Content-Encoding `{named}` is not supported: send the body plain or as gzip", 415)
    error.headers["accept-encoding"] = TAKEN
    raise error


def _damaged(why: str) -> MalformedRequestError:
    return MalformedRequestError(f"Failed to decode the request body of Content-Encoding `gzip`: {why}", 400)
