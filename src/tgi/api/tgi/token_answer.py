"""The answers of `/tokenize`, `/chat_tokenize` and `/detokenize`, made a thousand tokens at a time.

Owns how they are written. A prompt of two megabytes has up to two million tokens, whose JSON is fifty times
as long: it is never whole in memory, and made in a thread.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

import msgspec
from starlette.responses import Response

from tgi.api.openai.token_types import DetokenizeResponse
from tgi.api.server.call import Call, ignored_header
from tgi.api.tgi.types import SimpleToken
from tgi.serving.spans import TokenSpans

TOKENS_AT_ONCE = 1024
"""Some milliseconds of a thread, in which it shares the interpreter with the event loop."""
CHARACTERS_AT_ONCE = 1 << 18
encode = msgspec.json.Encoder().encode


async def token_answer(call: Call, spans: TokenSpans, before: bytes = b"[", after: bytes = b"]") -> Response:
    """An array of SimpleToken; `before` and `after` are what stands around its items."""
    headers = ignored_header(call.ignored)
    if len(spans) <= TOKENS_AT_ONCE:
        return call.answer(before + _items(spans, 0) + after, headers)
    return call.answer(_pieces(call, spans, before, after), headers)


def text_answer(call: Call, text: str) -> Response:
    """A DetokenizeResponse."""
    headers = ignored_header(call.ignored)
    if len(text) <= CHARACTERS_AT_ONCE:
        return call.answer(encode(DetokenizeResponse(text)), headers)
    return call.answer(_text_pieces(call, text), headers)


async def _text_pieces(call: Call, text: str) -> AsyncGenerator[bytes, None]:
    before, after = encode(DetokenizeResponse("|")).split(b"|")
    yield before
    for begin in range(0, len(text), CHARACTERS_AT_ONCE):
        piece = text[begin : begin + CHARACTERS_AT_ONCE]
        yield (await call.api.service.in_turn(partial(encode, piece)))[1:-1]
    yield after


async def _pieces(call: Call, spans: TokenSpans, before: bytes, after: bytes) -> AsyncGenerator[bytes, None]:
    for begin in range(0, len(spans), TOKENS_AT_ONCE):
        items = await call.api.service.in_turn(partial(_items, spans, begin))
        yield (b"," if begin else before) + items
    yield after


def _items(spans: TokenSpans, begin: int) -> bytes:
    """Some of the tokens from `begin` on, without the brackets of an array."""
    part = spans[begin : begin + TOKENS_AT_ONCE]
    return encode([SimpleToken(one.id, one.text, one.start, one.stop) for one in part])[1:-1]
