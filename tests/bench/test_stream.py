"""Events out of bytes, tokens out of events, and when the client says they came."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.bench_server import Clock, Exchange, FakeServer, tgi_token
from tgi.bench.dialects import Ask, Dialect, OpenAI, StreamReader, Tgi
from tgi.bench.errors import BenchError, RequestError, StatusError
from tgi.bench.http import Client
from tgi.bench.record import Record
from tgi.bench.sse import EventReader
from tgi.bench.target import Target

TEXT = st.lists(
    st.one_of(
        st.sampled_from(["", ":comment", "event: x", "id: 3", "data:", "data: ", "data:a", "data: b c", "data:  d"]),
        st.text(alphabet="xyé:", max_size=6).map(lambda text: f"data: {text}"),
    ),
    max_size=20,
)


@given(TEXT, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 300), max_size=12))
def test_events_do_not_depend_on_how_bytes_are_cut(lines: list[str], ending: str, cuts: list[int]) -> None:
    data = "".join(
        line + ending for line in [*lines, "", "data: end", "", ": so that a CR is not the last byte"]
    ).encode()
    expected, block = [], []
    for line in [*lines, "", "data: end", ""]:
        if line.startswith("data:"):
            block.append(re.sub("^ ", "", line[5:]).encode())
        elif not line and block:
            expected.append(b"\n".join(block))
            block = []
    reader, found, begin = EventReader(), [], 0
    for end in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        found += reader.feed(data[begin:end])
        begin = end
    assert found == expected


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_events_byte_by_byte(ending: bytes) -> None:
    """A CR LF cut in two must not end an event after its first line."""
    data = ending.join([b"data: a", b"data: b", b"", b"data: c", b"", b":"])
    reader = EventReader()
    assert [event for byte in data for event in reader.feed(bytes([byte]))] == [b"a\nb", b"c"]


def read(dialect: Dialect, *events: Any, wanted: int = 4) -> Record:
    """A record after events a second apart, the first at 1."""
    record = Record(7, wanted)
    sink = StreamReader(dialect, record)
    for number, event in enumerate(events):
        text = event if isinstance(event, str) else json.dumps(event)
        sink(f"data: {text}\n\n".encode(), 1.0 + number)
    record.settle()
    return record


def completion(text: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish}], **more}


def chat(finish: str | None = None, usage: int | None = None, **delta: Any) -> dict[str, Any]:
    counts = {"prompt_tokens": 9, "completion_tokens": usage} if usage is not None else None
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": counts}


USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
COMPLETIONS, CHAT = OpenAI("openai-completions", "m"), OpenAI("openai-chat", "m")


def test_tgi_has_an_event_for_a_token() -> None:
    record = read(Tgi(), tgi_token(1), tgi_token(2), tgi_token(3, last=(3, 12)))
    assert (record.times, record.counts) == ([1.0, 2.0, 3.0], [1, 1, 1])
    assert (record.tokens, record.prompt_tokens, record.finished, record.error) == (3, 12, True, None)


def test_tgi_tells_errors_in_the_stream() -> None:
    record = read(Tgi(), {"error": "Model is overloaded", "error_type": "overloaded"})
    assert record.error == ("overloaded", "Model is overloaded") and not record.times


def test_tokens_of_one_read_have_no_gap() -> None:
    record = Record(7, 2)
    sink = StreamReader(Tgi(), record)
    data = "".join(f"data: {json.dumps(event)}\n\n" for event in (tgi_token(1), tgi_token(2), tgi_token(3)))
    sink(data.encode(), 5.0)
    assert (record.times, record.counts) == ([5.0], [3])


def test_a_token_without_text_is_a_token() -> None:
    """A part of a character; the last event is one too, if the usage says so."""
    record = read(COMPLETIONS, completion(""), completion("a"), completion("b"), completion("", "length"), USAGE)
    assert record.times == [1.0, 2.0, 3.0, 4.0] and sum(record.counts) == 4


def test_an_end_without_a_token_is_none() -> None:
    record = read(COMPLETIONS, *[completion(letter) for letter in "abcd"], completion("", "length"), USAGE, "[DONE]")
    assert record.times == [1.0, 2.0, 3.0, 4.0] and record.finished


def test_pieces_of_several_tokens_add_up_to_the_usage() -> None:
    record = read(COMPLETIONS, completion("ab"), completion("cd", "stop"), USAGE)
    assert record.counts == [2.0, 2.0] and record.prompt_tokens == 9


def test_usage_in_every_event_counts_exactly() -> None:
    events = [chat(usage=0, role="assistant", content=""), chat(usage=3, content="abc"), chat("length", 4, content="")]
    record = read(CHAT, *events, USAGE)
    assert (record.times, record.counts) == ([2.0, 3.0], [3, 1])


@pytest.mark.parametrize("name", ["content", "reasoning_content", "reasoning"])
def test_the_role_alone_is_no_token(name: str) -> None:
    record = read(CHAT, chat(role="assistant", content=""), chat(**{name: "a"}), chat(content=""), chat("stop"))
    assert record.times == [2.0, 3.0] and record.finished


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": "no", "code": 503, "type": "x"}, ("503", "no")),
        ({"message": "no", "type": "server_error"}, ("server_error", "no")),
        ({"message": "no", "http_status_code": 422}, ("422", "no")),
        ("plain", ("error", "plain")),
    ],
)
def test_openai_errors_in_the_stream(error: Any, expected: tuple[str, str]) -> None:
    assert read(CHAT, {"error": error}).error == expected


def test_an_event_that_cannot_be_read_is_an_error() -> None:
    record = read(Tgi(), "{nonsense")
    assert record.error is not None and record.error[0] == "unreadable event" and "{nonsense" in record.error[1]


def test_bodies() -> None:
    ask = Ask("a b", 2, 5, cut=True)
    assert json.loads(Tgi({"seed": 0}).body(ask)) == {
        "inputs": "a b",
        "parameters": {"max_new_tokens": 5, "ignore_eos": True, "details": True, "seed": 0, "truncate": 2},
    }
    common = {"model": "m", "max_tokens": 5, "temperature": 0, "stream": True}
    assert json.loads(COMPLETIONS.body(ask)) == {
        **common, "ignore_eos": True, "prompt": "a b", "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert json.loads(CHAT.body(ask)) == {
        **common,
        "ignore_eos": True,
        "messages": [{"role": "user", "content": "a b"}],
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    plain = json.loads(OpenAI("openai-chat", "m", plain=True).body(ask))
    assert plain == {
        **common, "messages": [{"role": "user", "content": "a b"}], "stream_options": {"include_usage": True},
    }  # fmt: skip


async def test_times_are_those_of_the_packets() -> None:
    clock = Clock(100.0)

    async def handler(exchange: Exchange) -> None:
        clock.now = 100.25  # a head without a token is not the first token
        await clock.read(exchange.head)
        for moment, number in ((100.5, 1), (100.6, 2), (100.8, 3)):
            clock.now = moment
            event = tgi_token(number, last=(3, 7) if number == 3 else None)
            await clock.read(lambda event=event: exchange.event(event))
        clock.now = 101.0
        await exchange.end()

    async with FakeServer(handler) as server, Client(server.url, clock=clock) as client:
        record = await Target(client, Tgi(), "m").send(Ask("a", 7, 3))
    assert record.error is None and record.sent == 100.0 and record.ended == 101.0
    assert record.ttft == pytest.approx(0.5)
    assert record.gaps == pytest.approx([0.1, 0.2])
    assert record.tpot == pytest.approx(0.15) and record.e2e == pytest.approx(0.8)


async def test_under_a_rate_time_runs_from_when_the_request_was_due() -> None:
    clock = Clock(100.0)

    async def handler(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.event(tgi_token(1, last=(1, 7)))
        await exchange.end()

    async with FakeServer(handler) as server, Client(server.url, clock=clock) as client:
        record = await Target(client, Tgi(), "m").send(Ask("a", 7, 1), at=98.5)
    assert record.ttft == pytest.approx(1.5)


async def ask(handler: Any, **options: Any) -> Record:
    async with FakeServer(handler) as server, Client(server.url, **options) as client:
        return await Target(client, Tgi(), "m").send(Ask("a", 7, 2))


async def test_connections_are_kept_and_reused() -> None:
    seen = []

    async def handler(exchange: Exchange) -> None:
        seen.append((exchange.connection, exchange.headers["authorization"]))
        await exchange.json([])

    async with FakeServer(handler) as server, Client(server.url, "key") as client:
        assert [(await client.get("/x"))[0] for _ in range(3)] == [200] * 3
        await client.warm(4)
        await asyncio.gather(*(client.get("/x") for _ in range(4)))
    assert [number for number, _ in seen[:3]] == [1, 1, 1]
    assert {number for number, _ in seen[3:]} == {1, 2, 3, 4}
    assert {key for _, key in seen} == {"bearer key"}


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced() -> None:
    async def handler(exchange: Exchange) -> None:
        if exchange.connection == 1 and exchange.path == "/second":
            exchange.writer.transport.abort()  # as a server does whose patience just ended
            return
        await exchange.json(exchange.connection)

    async with FakeServer(handler) as server, Client(server.url) as client:
        assert await client.get("/first") == (200, 1)
        assert await client.get("/second") == (200, 2)


async def test_a_body_may_end_with_the_connection() -> None:
    async def handler(exchange: Exchange) -> None:
        event = json.dumps(tgi_token(1, last=(1, 7)))
        await exchange.raw(f"HTTP/1.0 200 OK\r\n\r\ndata: {event}\n\n".encode())
        exchange.writer.close()

    record = await ask(handler)
    assert record.error is None and record.tokens == 1


async def test_a_stream_that_breaks_off_is_a_failure() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.event(tgi_token(1))
        exchange.writer.close()

    record = await ask(handler)
    assert record.error == ("connection lost", "the server closed the connection") and not record.ok


async def test_a_stream_without_its_last_event_is_a_failure() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.event(tgi_token(1))
        await exchange.end()

    assert (await ask(handler)).error == ("incomplete", "the stream ended before its last event")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "Model is overloaded", "error_type": "overloaded"}, "Model is overloaded"),
        ({"error": {"message": "Model is overloaded", "code": 1}}, "Model is overloaded"),
        ({"detail": "Model is overloaded"}, "Model is overloaded"),
        ("Model is overloaded", "Model is overloaded"),
    ],
)
async def test_a_status_is_a_failure_with_what_the_server_said(body: Any, message: str) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.json(body, 429)

    assert (await ask(handler)).error == ("HTTP 429", message)


async def test_what_is_not_http_is_said_so() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.raw(b"SSH-2.0-OpenSSH_9.6\r\n")

    record = await ask(handler)
    assert record.error is not None and record.error[0] == "not HTTP"


async def test_a_request_that_takes_too_long_fails_and_its_connection_is_given_up() -> None:
    release = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        if exchange.path == "/generate_stream":
            await exchange.head()
            await release.wait()
        else:
            await exchange.json(exchange.connection)

    async with FakeServer(handler) as server, Client(server.url, timeout=0.05) as client:
        record = await Target(client, Tgi(), "m").send(Ask("a", 7, 2))
        assert record.error == ("timeout", "no end of the answer within 0.05 s")
        assert await client.get("/x") == (200, 2)
        release.set()


async def test_a_mistake_in_a_sink_is_not_taken_for_the_servers() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.json({})

    def sink(piece: bytes, now: float) -> None:
        raise ZeroDivisionError

    async with FakeServer(handler) as server, Client(server.url) as client:
        with pytest.raises(ZeroDivisionError):
            await client.post("/x", b"{}", sink)


async def test_nobody_listening() -> None:
    async with FakeServer(lambda exchange: exchange.json({})) as server:
        url = server.url
    async with Client(url) as client:
        with pytest.raises(RequestError, match=f"cannot connect to {url}: nothing listens there"):
            await client.get("/")


async def test_a_status_has_a_number() -> None:
    async with FakeServer(lambda exchange: exchange.json({}, 503)) as server, Client(server.url) as client:
        with pytest.raises(StatusError) as caught:
            await client.post("/x", b"{}", lambda piece, now: None)
    assert caught.value.status == 503


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("localhost:8080", "http://localhost:8080"),
        ("http://h/", "http://h"),
        ("https://h:1/api/v1/", "https://h:1/api"),
        ("http://[::1]:80/v1", "http://[::1]:80"),
    ],
)
def test_addresses(url: str, normal: str) -> None:
    assert Client(url).url == normal


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://h:port", "http://h?x=1", "http://h h", "", "http://a@h"])
def test_addresses_that_cannot_be(url: str) -> None:
    with pytest.raises(BenchError, match="--url"):
        Client(url)


def test_a_key_cannot_bring_headers_of_its_own() -> None:
    with pytest.raises(BenchError, match="printable"):
        Client("http://h", "a\r\nX-More: 1")
