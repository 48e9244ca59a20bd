"""Over a real socket: bytes as they are sent, clients that leave, clients that are slow, silence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.api.fake import FakeEngine, build_app, serve
from tgi.api.wire import streaming
from tgi.api.wire.forms import TGI
from tgi.errors import ENGINE_HEADER, EngineLostError, GenerationError

MESSAGES = [{"role": "user", "content": "Hi"}]
ALL_ROUTES: list[tuple[str, dict[str, Any]]] = [
    ("/generate", {"inputs": "x"}),
    ("/generate_stream", {"inputs": "x"}),
    ("/", {"inputs": "x", "stream": True}),
    ("/v1/chat/completions", {"messages": MESSAGES}),
    ("/v1/chat/completions", {"messages": MESSAGES, "stream": True, "n": 2}),
    ("/v1/completions", {"prompt": ["x", "y"]}),
    ("/v1/completions", {"prompt": ["x", "y"], "stream": True}),
    ("/vertex", {"instances": [{"inputs": "x"}, {"inputs": "y"}]}),
    ("/invocations", {"inputs": "x"}),
]


@asynccontextmanager
async def connection(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


def request(path: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def until(engine: FakeEngine, condition: Any) -> None:
    """Wait for the engine to report, not for time to pass."""
    while not condition():
        await engine.changed.wait()


@pytest.mark.parametrize("held", [0, 3])
@pytest.mark.parametrize(("path", "body"), ALL_ROUTES)
async def test_a_client_that_leaves_frees_its_slot(
    path: str, body: dict[str, Any], held: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether queued (no token yet) or in the middle, streaming or not; the log has a line of it."""
    caplog.set_level("INFO", "tgi.api")
    engine = FakeEngine()
    engine.hold_after = held
    app = build_app(engine)
    async with serve(app) as address:
        async with connection(address) as (_, writer):
            writer.write(request(path, body))
            await until(engine, lambda: engine.open_requests > 0)
        await until(engine, lambda: engine.aborted and not engine.open_requests)
        await asyncio.wait_for(app.state.api.permits.drained(), 10)
        assert b'tgi_request_failure{err="dropped"} 1' in app.state.api.metrics.render()
        assert caplog.messages == ["The client left before the end of its answer"]
        engine.hold_after = None
        async with httpx.AsyncClient(base_url=address) as client:
            assert (await client.post("/generate", json={"inputs": "x"})).json() == {"generated_text": "Hello world"}


async def test_a_client_that_leaves_before_its_body_is_complete() -> None:
    app = build_app(FakeEngine())
    async with serve(app) as address:
        async with connection(address) as (_, writer):
            writer.write(request("/generate", {"inputs": "x"})[:-3])
            await writer.drain()
        async with httpx.AsyncClient(base_url=address) as client:
            assert (await client.post("/generate", json={"inputs": "x"})).status_code == 200
    assert app.state.api.permits.taken == 0


async def test_bytes_on_the_wire() -> None:
    engine = FakeEngine(reply="ab")
    async with serve(build_app(engine)) as address, connection(address) as (reader, writer):
        writer.write(request("/generate_stream", {"inputs": "x", "parameters": {"max_new_tokens": 1}}))
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        body = await reader.readuntil(b"\r\n0\r\n\r\n")
    assert head.startswith("http/1.1 200 ok\r\n")
    assert "\r\ncontent-type: text/event-stream\r\n" in head
    assert "\r\ncache-control: no-cache\r\n" in head
    assert "\r\nx-accel-buffering: no\r\n" in head
    size, _, rest = body.partition(b"\r\n")
    event = rest[: int(size, 16)]
    assert event.startswith(b'data: {"index":1,"token":{"id":')
    assert event.endswith(b'"generated_text":"a","details":null}\n\n')


def test_an_event_is_one_line_to_everybody() -> None:
    """httpx takes U+0085, U+2028 and U+2029 for ends of lines, the standard does not."""
    text = "a\x85b\u2028c\u2029d\x0b\x1c\r\né"
    data = streaming.event({"text": text})
    line, end = data.decode().splitlines()
    assert json.loads(line.removeprefix("data: ")) == {"text": text}
    assert end == ""
    assert "é".encode() in data


async def test_nothing_is_sent_before_the_first_token() -> None:
    engine = FakeEngine()
    engine.hold_after = 0
    async with serve(build_app(engine)) as address, connection(address) as (reader, writer):
        writer.write(request("/v1/chat/completions", {"messages": MESSAGES, "stream": True}))
        await until(engine, lambda: engine.open_requests)
        first = asyncio.create_task(reader.readuntil(b"\n\n"))
        await asyncio.sleep(0.02)
        assert not first.done()
        engine.release.set()
        assert b'"content":"H"' in await first


async def test_a_lost_engine_is_in_the_head_until_a_token_came() -> None:
    for begun in (0, 2):
        engine = FakeEngine()
        engine.fail_after, engine.failure = begun, (GenerationError if begun else EngineLostError)("gone")
        async with serve(build_app(engine)) as address, httpx.AsyncClient(base_url=address, trust_env=False) as client:
            answers = [
                await client.post("/generate_stream", json={"inputs": "x"}),
                await client.post("/v1/chat/completions", json={"messages": MESSAGES, "stream": True}),
            ]
        assert [answer.status_code for answer in answers] == [200, 200 if begun else 424]
        for answer in answers:
            assert "gone" in answer.text
            assert answer.headers.get(ENGINE_HEADER) == (None if begun else "lost")


async def test_keep_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment when nothing else was sent, also before the first token."""
    assert streaming.KEEP_ALIVE_S == 15.0
    monkeypatch.setattr(streaming, "KEEP_ALIVE_S", 0.02)
    monkeypatch.setattr(streaming, "SHORTEST_WATCH_S", 0.001)
    for held in (0, 2):
        engine = FakeEngine()
        engine.hold_after = held
        async with serve(build_app(engine)) as address, connection(address) as (reader, writer):
            writer.write(request("/generate_stream", {"inputs": "x"}))
            await reader.readuntil(b"\r\n:\n\n\r\n")
            engine.release.set()
            assert b"Hello world" in await reader.readuntil(b"\r\n0\r\n\r\n")


class Gate:
    """An ASGI client whose connection takes bytes only when told."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.writes: list[bytes] = []
        self.left = asyncio.Event()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.writes.append(message["body"])
            await self.open.wait()

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}


def stream_of(engine: FakeEngine, ended: list[bool]) -> streaming.EventStream:
    """The stream of a prepared request, without the application around it."""
    app = build_app(engine)

    async def events() -> Any:
        from tgi.api.tgi.routes import stream_response
        from tgi.serving.dialect import TGI
        from tgi.serving.types import SamplingParams

        prepared = await app.state.api.service.prepare("x", SamplingParams(), TGI)
        async for deltas in app.state.api.service.stream(prepared):
            yield b"".join(streaming.event(stream_response(prepared, delta)) for delta in deltas)

    return streaming.EventStream(events(), {}, form=TGI, on_error=lambda error: None, on_end=ended.append)


async def test_events_of_one_step_are_one_write() -> None:
    engine = FakeEngine()
    engine.per_event = 6
    gate, ended = Gate(), []
    gate.open.set()
    await stream_of(engine, ended)({"type": "http"}, gate.receive, gate.send)
    assert [write.count(b"data: ") for write in gate.writes] == [6, 6, 0]
    assert ended == [False]


async def test_a_reader_that_never_reads_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WRITE_TIMEOUT_S", 0.02)
    monkeypatch.setattr(streaming, "KEEP_ALIVE_S", 0.01)
    monkeypatch.setattr(streaming, "SHORTEST_WATCH_S", 0.001)
    engine, gate, ended = FakeEngine(), Gate(), []
    await asyncio.wait_for(stream_of(engine, ended)({"type": "http"}, gate.receive, gate.send), 10)
    assert ended == [True]
    assert (len(gate.writes), engine.open_requests, len(engine.aborted)) == (1, 0, 1)


async def test_merge_ends_with_its_streams() -> None:
    """Closing or failing ends all of the merged generators."""
    closed: list[int] = []

    async def numbers(start: int, fail: bool = False) -> Any:
        try:
            for number in range(start, start + 3):
                await asyncio.sleep(0)
                yield number
            if fail:
                raise ValueError
            await asyncio.Event().wait()
        finally:
            closed.append(start)

    merged = streaming.merge([numbers(0), numbers(10), numbers(20)])
    assert {await anext(merged) for _ in range(9)} == {0, 1, 2, 10, 11, 12, 20, 21, 22}
    await merged.aclose()
    assert sorted(closed) == [0, 10, 20]
    closed.clear()
    with pytest.raises(ValueError):
        async for _ in streaming.merge([numbers(0), numbers(10, fail=True)]):
            pass
    assert sorted(closed) == [0, 10]
