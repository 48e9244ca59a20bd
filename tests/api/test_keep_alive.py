"""Comments that keep silent connections alive, read by clients that are not careful with them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.api.fake import FakeEngine, build_app, serve
from tests.api.test_wire import MESSAGES, Gate, connection, request, stream_of
from tgi.api.wire import streaming


class StrippingParser:
    """Reads a stream as vLLM's benchmark does (`StreamedResponseHandler`), and many a script: it strips each piece
    that it receives, joins the pieces, and cuts the text at empty lines."""

    def __init__(self) -> None:
        self._buffer = ""
        self.payloads: list[Any] = []

    def feed(self, piece: bytes) -> None:
        piece = piece.strip()
        if not piece:
            return
        self._buffer += piece.decode()
        while "\n\n" in self._buffer:
            message, self._buffer = self._buffer.split("\n\n", 1)
            self._take(message.strip())
        if self._buffer.startswith("data: "):  # what was stripped may have been the end of an event
            payload = self._buffer.removeprefix("data: ").strip()
            if payload == "[DONE]" or _is_json(payload):
                self._take(self._buffer)
                self._buffer = ""

    def _take(self, message: str) -> None:
        if message and not message.startswith(":"):
            payload = message.removeprefix("data: ")
            self.payloads.append(payload if payload == "[DONE]" else json.loads(payload))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


async def chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The pieces of a chunked body as they were written."""
    await reader.readuntil(b"\r\n\r\n")
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]


BUSY = [
    ("/generate_stream", {"inputs": "x"}),
    ("/", {"inputs": "x", "stream": True}),
    ("/v1/chat/completions", {"messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/completions", {"prompt": ["x", "y"], "stream": True}),
]


@pytest.mark.parametrize("failing", [False, True], ids=["whole", "failing"])
@pytest.mark.parametrize("per_event", [1, 4])
@pytest.mark.parametrize(("path", "body"), BUSY)
async def test_a_parser_that_strips_reads_a_busy_servers_stream(
    path: str, body: dict[str, Any], per_event: int, failing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One comment or several before, between and after tokens: nothing of the stream is lost to it."""
    monkeypatch.setattr(streaming, "KEEP_ALIVE_S", 0.01)
    monkeypatch.setattr(streaming, "SHORTEST_WATCH_S", 0.001)
    engine = FakeEngine()
    engine.per_event = per_event
    engine.fail_after = 8 if failing else None
    pauses = [0.0, 0.05, 0.0, 0.02] * 4

    async def slow_turn(position: int) -> None:
        await asyncio.sleep(pauses[position % len(pauses)] if position else 0.05)
        await quick_turn(position)

    quick_turn = engine._turn
    engine._turn = slow_turn  # type: ignore[method-assign]
    parser, comments = StrippingParser(), 0
    async with serve(build_app(engine)) as address, connection(address) as (reader, writer):
        writer.write(request(path, body))
        async for chunk in chunks(reader):
            comments += chunk == streaming.COMMENT
            parser.feed(chunk)
    assert comments
    text = ""
    for payload in parser.payloads:
        if "token" in payload:
            text += payload["token"]["text"] if not payload["token"]["special"] else ""
        elif payload != "[DONE]":
            for choice in payload.get("choices", ())[:1]:
                if choice["index"] == 0:
                    text += choice["delta"]["content"] if "delta" in choice else choice["text"]
    assert text == ("Hello wo" if failing else "Hello world")
    assert ("error" in str(parser.payloads[-2:])) == failing
    if path.startswith("/v1/"):
        assert parser.payloads[-1] == "[DONE]"


async def test_a_comment_that_nobody_takes_does_not_outlast_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is full and the engine silent: the comment itself waits."""
    monkeypatch.setattr(streaming, "WRITE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(streaming, "KEEP_ALIVE_S", 0.01)
    monkeypatch.setattr(streaming, "SHORTEST_WATCH_S", 0.001)
    engine, gate, ended = FakeEngine(), Gate(), []
    engine.hold_after = 0
    await asyncio.wait_for(stream_of(engine, ended)({"type": "http"}, gate.receive, gate.send), 10)
    assert (ended, gate.writes) == ([True], [streaming.COMMENT])
