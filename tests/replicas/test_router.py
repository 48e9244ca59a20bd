"""The router in front of replicas that misbehave: bytes, retries, refusals, lost streams, keys, models."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from tests.replicas.stub import Exchange, Stub, routed, routed_urls, until
from tgi.launcher import http_half_close
from tgi.replicas import replica as replica_module

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
EVENTS = [b'data: {"a": 1}\n\n', b":\n\n", b'data: {"b": "\xc3\xa4"}\n\n', b"data: [DONE]\n\n"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "BEAT_S", 0.05)
    monkeypatch.setattr(http_half_close, "FIRST_PROBE_S", 0.05)
    monkeypatch.setattr(http_half_close, "LOOK_EVERY_S", 0.01)


async def ok(exchange: Exchange) -> None:
    await exchange.answer(b'{"text": "ok"}', content_type="application/json", x_own="kept")


async def events(exchange: Exchange) -> None:
    await exchange.begin_stream()
    for one in EVENTS:
        await exchange.piece(one)
    await exchange.end()


async def cut(exchange: Exchange) -> None:
    exchange.cut()


async def forever(exchange: Exchange) -> None:
    await exchange.begin_stream()
    while True:
        await exchange.piece(EVENTS[0])
        await asyncio.sleep(0.02)


def full(seconds: int) -> Any:
    async def refuse(exchange: Exchange) -> None:
        await exchange.answer(b'{"error": "Model is overloaded"}', 429, retry_after=str(seconds))

    return refuse


async def test_bytes_and_headers_pass_through() -> None:
    async with routed([Stub(ok)]) as (client, _):
        body = b'{"inputs":  "caf\xc3\xa9", "parameters": {}}'
        headers = {"content-type": "application/json", "traceparent": "00-1-2-01", "x-mine": "y"}
        answer = await client.post("/generate?a=b%20c", content=body, headers=headers)
        assert (answer.status_code, answer.content) == (200, b'{"text": "ok"}')
        assert answer.headers["x-own"] == "kept"
        assert len(answer.headers.get_list("date")) == 1


async def test_the_replica_sees_what_the_client_sent() -> None:
    stub = Stub(ok)
    async with routed([stub]) as (client, _):
        body = b'{"inputs":  "caf\xc3\xa9"}'
        headers = {"traceparent": "00-1-2-01", "x-request-id": "mine", "authorization": "Bearer k"}
        answer = await client.post("/generate?a=b%20c", content=body, headers=headers)
        (seen,) = stub.requests
        assert (seen.method, seen.target, seen.body) == ("POST", "/generate?a=b%20c", body)
        assert {name: seen.headers[name] for name in headers} == headers
        assert answer.headers["x-request-id"] == "mine"
        assert answer.headers["x-tgi-replica"] == stub.url.removeprefix("http://")


async def test_every_request_has_an_id() -> None:
    stub = Stub(ok)
    async with routed([stub]) as (client, _):
        answers = [await client.post("/generate", json={"inputs": "x"}) for _ in range(2)]
        ids = [answer.headers["x-request-id"] for answer in answers]
        assert ids == [seen.headers["x-request-id"] for seen in stub.requests] and ids[0] != ids[1]


async def test_streams_are_byte_equal_and_come_as_they_are_made() -> None:
    gate = asyncio.Event()

    async def slowly(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.piece(EVENTS[0] + EVENTS[1][:1])  # an event and the beginning of the next
        await gate.wait()
        await exchange.piece(EVENTS[1][1:] + EVENTS[2])
        await exchange.piece(EVENTS[3])
        await exchange.end()

    async with routed([Stub(slowly)]) as (client, _), client.stream("POST", "/v1/chat/completions", json=CHAT) as got:
        pieces = got.aiter_raw()
        assert await anext(pieces) == EVENTS[0]
        gate.set()
        assert EVENTS[0] + b"".join([piece async for piece in pieces]) == b"".join(EVENTS)


async def test_a_request_without_a_byte_is_sent_to_another_replica_once() -> None:
    good, bad = Stub(ok), Stub(cut)
    async with routed([good, bad]) as (client, router):
        for number in range(12):
            answer = await client.post("/generate", json={"inputs": f"{number}" * 700})
            assert answer.status_code == 200
        assert bad.requests and len(good.requests) == 12
        sent_again = sum(router.metrics.retries.labels(reason)._value.get() for reason in ("lost", "closed"))
        assert sent_again == len(bad.requests)


@pytest.mark.parametrize("status", [424, 200])
async def test_a_server_that_lost_its_engine_is_no_answer(status: int) -> None:
    """Its process lives and says so, in a stream too: before a byte of the answer another replica has the request."""

    async def lost(exchange: Exchange) -> None:
        kind = "application/json" if status == 424 else "text/event-stream"
        await exchange.answer(b'data: {"error": "x"}\n\n', status, content_type=kind, x_tgi_engine="lost")

    good, bad = Stub(ok), Stub(lost)
    async with routed([good, bad]) as (client, _):
        for number in range(12):
            answer = await client.post("/generate", json={"inputs": f"{number}" * 700})
            assert (answer.status_code, answer.content) == (200, b'{"text": "ok"}')
        assert bad.requests and len(good.requests) == 12
    async with routed([Stub(lost), Stub(lost)]) as (client, _):
        answer = await client.post("/generate", json={"inputs": "x"})
        assert answer.status_code == status and answer.headers["x-tgi-engine"] == "lost", (
            "the second one's is passed on"
        )


async def test_two_lost_replicas_are_an_error_and_not_a_third_try() -> None:
    stubs = [Stub(cut) for _ in range(4)]
    async with routed(stubs) as (client, _):
        answer = await client.post("/generate", json={"inputs": "x"})
        assert answer.status_code == 424 and answer.json()["error_type"] == "generation"
        assert sum(len(stub.requests) for stub in stubs) == 2


async def test_addresses_where_nobody_listens_do_not_count_as_tries() -> None:
    dead = []
    for _ in range(3):
        async with Stub(ok) as stub:
            dead.append(stub.url)
    async with Stub(ok) as good, routed_urls([*dead, good.url], ready=1) as (client, router):
        for number in range(10):
            answer = await client.post("/generate", json={"inputs": str(number)})
            assert answer.status_code == 200
        assert router.usable


@pytest.mark.parametrize(
    ("path", "last"),
    [
        ("/generate_stream", b'"error_type":"generation"}\n\n'),
        ("/v1/chat/completions", b"data: [DONE]\n\n"),
        ("/v1/completions", b"data: [DONE]\n\n"),
        ("/v1/messages", b'"type":"error"'),
        ("/v1/responses", b"event: error\ndata: "),
    ],
)
async def test_a_lost_stream_ends_with_an_error_event_of_its_dialect(path: str, last: bytes) -> None:
    async def half(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.piece(EVENTS[0] + b'data: {"half')
        await asyncio.sleep(0.05)
        exchange.cut()

    async with routed([Stub(half), Stub(half)]) as (client, _):
        begin = time.monotonic()
        answer = await client.post(path, json={"inputs": "x", **CHAT, "stream": True})
        assert time.monotonic() - begin < 2
        assert answer.status_code == 200 and answer.content.startswith(EVENTS[0])
        assert b"half" not in answer.content and last in answer.content and b"was lost" in answer.content


async def test_a_cut_answer_that_is_no_stream_does_not_look_whole() -> None:
    async def half(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await asyncio.sleep(0.05)
        exchange.cut()

    async with routed([Stub(half)]) as (client, _):
        with pytest.raises(httpx.TransportError):
            await client.post("/generate", json={"inputs": "x"})


async def test_when_the_client_leaves_the_replica_is_told() -> None:
    stub = Stub(forever)
    async with routed([stub]) as (client, router):
        async with client.stream("POST", "/generate_stream", json={"inputs": "x"}) as answer:
            assert await anext(answer.aiter_raw()) == EVENTS[0]
        async with asyncio.timeout(2):
            await stub.left.wait()
        await until(lambda: not router.open_requests)
        assert router.chooser.fleet.queued[0] == 0


async def test_leaving_before_the_first_byte_is_noticed_too() -> None:
    async def never(exchange: Exchange) -> None:
        await asyncio.sleep(60)

    stub = Stub(never)
    async with routed([stub]) as (client, _):
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/generate", json={"inputs": "x"}, timeout=0.2)
        async with asyncio.timeout(2):
            await stub.left.wait()


async def test_a_full_replica_is_passed_over() -> None:
    good, busy = Stub(ok), Stub(full(30))
    async with routed([busy, good]) as (client, _):
        for number in range(12):
            assert (await client.post("/generate", json={"inputs": f"{number}" * 99})).status_code == 200
        assert len(good.requests) == 12 and len(busy.requests) <= 3


@pytest.mark.parametrize(("path", "status"), [("/generate", 429), ("/v1/chat/completions", 429), ("/v1/messages", 529)])
async def test_all_full_is_a_429_with_the_earliest_time(path: str, status: int) -> None:
    async with routed([Stub(full(30)), Stub(full(7))]) as (client, _):
        for _ in range(3):
            answer = await client.post(path, json={"inputs": "x", **CHAT})
            assert answer.status_code == status
            assert 5 <= int(answer.headers["retry-after"]) <= 7


async def test_a_draining_replica_gets_nothing_new() -> None:
    async def draining(exchange: Exchange) -> None:
        await exchange.answer(b"{}", 503)

    async with routed([Stub(draining), Stub(ok)]) as (client, _):
        for number in range(10):
            assert (await client.post("/generate", json={"inputs": f"{number}" * 99})).status_code == 200


async def test_without_any_replica_health_and_requests_say_so() -> None:
    async with Stub(ok) as stub:
        url = stub.url
    async with routed_urls([url], ready=0) as (client, _):
        assert (await client.get("/health")).status_code == 503
        answer = await client.post("/generate", json={"inputs": "x"})
        assert answer.status_code == 503 and "replica" in answer.json()["error"]


async def test_a_frozen_replica_is_taken_out_and_its_streams_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "SILENT_S", 0.2)
    monkeypatch.setattr(replica_module, "LOST_S", 0.5)
    gate = asyncio.Event()

    async def stuck(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.piece(EVENTS[0])
        await gate.wait()

    frozen, good = Stub(stuck), Stub(ok)
    async with routed([frozen]) as (client, router):
        answering = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
        await until(lambda: bool(frozen.requests))
        frozen.thawed.clear()
        await until(lambda: not router.replicas[0].up, 2)
        assert (await client.get("/health")).status_code == 503
        answer = await answering
        assert b"was lost" in answer.content and answer.content.endswith(b"[DONE]\n\n")
        frozen.thawed.set()
        await until(lambda: router.replicas[0].up, 3)
        gate.set()
    assert not good.requests


async def test_a_killed_replica_ends_its_streams_and_no_others() -> None:
    stubs = [Stub(forever), Stub(forever)]
    async with routed(stubs) as (client, router):

        async def stream(number: int) -> bytes:
            seen = b""
            async with client.stream("POST", "/generate_stream", json={"inputs": f"{number}" * 999}) as answer:
                async for piece in answer.aiter_raw():
                    seen += piece
            return seen

        tasks = [asyncio.create_task(stream(number)) for number in range(16)]
        await until(lambda: sum(len(stub.requests) for stub in stubs) == 16)
        lost = len(stubs[0].requests)
        assert 0 < lost < 16
        await asyncio.sleep(0.1)  # every stream has begun
        stubs[0].kill()
        await until(lambda: sum(task.done() for task in tasks) >= lost, 2)
        await until(lambda: not router.replicas[0].up)
        ended = [task for task in tasks if task.done()]
        assert len(ended) == lost and all(b"was lost" in task.result() for task in ended)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_keys_are_checked_here_and_passed_on() -> None:
    stub = Stub(ok)
    async with routed([stub], api_keys=("secret",)) as (client, _):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": "Secret"}):
            for path in ("/generate", "/v1/chat/completions", "/", "/unheard-of"):
                answer = await client.post(path, json=CHAT, headers=headers)
                assert answer.status_code == 401
        assert (await client.get("/unheard-of")).status_code == 401
        assert not stub.requests
        for path in ("/health", "/metrics", "/v1/models", "/info"):
            assert (await client.get(path)).status_code == 200
        answer = await client.post("/generate", json={"inputs": "x"}, headers={"authorization": "Bearer secret"})
        assert answer.status_code == 200 and stub.requests[-1].headers["authorization"] == "Bearer secret"


async def test_several_models_behind_one_address() -> None:
    large, small = Stub(ok, model="org/large"), Stub(ok, model="small")
    async with routed([large, small]) as (client, _):
        listed = (await client.get("/v1/models")).json()["data"]
        assert [one["id"] for one in listed] == ["org/large", "small"]
        assert (await client.get("/v1/models/small")).json()["id"] == "small"
        await client.post("/v1/chat/completions", json={**CHAT, "model": "small"})
        assert len(small.requests) == 1
        await client.post("/generate", json={"inputs": "x"})
        assert len(large.requests) == 1
        await client.post("/small/generate", json={"inputs": "x"})
        assert small.requests[-1].target == "/generate"
        await client.post("/org/large/v1/chat/completions?x=1", json={**CHAT, "model": "whatever"})
        assert large.requests[-1].target == "/v1/chat/completions?x=1"
        answer = await client.post("/v1/chat/completions", json={**CHAT, "model": "huge"})
        assert answer.status_code == 404
        message = answer.json()["error"]["message"]
        assert "`huge`" in message and "`org/large`" in message and "`small`" in message


async def test_a_model_whose_replicas_are_away_is_not_unknown() -> None:
    there, away = Stub(ok, model="there"), Stub(ok, model="away")
    async with routed([there, away]) as (client, router):
        away.kill()
        await until(lambda: not router.replicas[1].up)
        answer = await client.post("/v1/chat/completions", json={**CHAT, "model": "away"})
        assert answer.status_code == 503 and "`away`" in answer.json()["error"]["message"]
        assert (await client.post("/v1/chat/completions", json={**CHAT, "model": "there"})).status_code == 200
        assert len((await client.get("/v1/models")).json()["data"]) == 2


async def test_one_model_is_asked_whatever_its_name() -> None:
    stub = Stub(ok)
    async with routed([stub]) as (client, _):
        assert (await client.post("/v1/chat/completions", json={**CHAT, "model": "other"})).status_code == 200


async def test_what_one_replica_keeps_is_found() -> None:
    async def keeps(exchange: Exchange) -> None:
        await exchange.answer(b'{"id": "resp_1"}')

    async def lacks(exchange: Exchange) -> None:
        await exchange.answer(b'{"error": {}}', 404)

    async with routed([Stub(lacks), Stub(keeps), Stub(lacks)]) as (client, _):
        assert (await client.get("/v1/responses/resp_1")).json() == {"id": "resp_1"}
        body = {"model": "demo", "input": "more", "previous_response_id": "resp_1"}
        assert (await client.post("/v1/responses", json=body)).json() == {"id": "resp_1"}
    async with routed([Stub(lacks), Stub(lacks)]) as (client, _):
        answer = await client.get("/v1/responses/resp_1")
        assert (answer.status_code, answer.content) == (404, b'{"error": {}}')


async def test_a_conversation_stays_and_metrics_tell_of_it() -> None:
    stubs = [Stub(ok, prefix_query_tokens=100, prefix_hit_tokens=40), Stub(ok), Stub(ok)]
    async with routed(stubs) as (client, _):
        messages = [{"role": "user", "content": "a" * 2000}]
        seen = set()
        for turn in range(5):
            answer = await client.post("/v1/chat/completions", json={"model": "demo", "messages": messages})
            seen.add(answer.headers["x-tgi-replica"])
            messages += [{"role": "assistant", "content": "b" * 500}, {"role": "user", "content": f"{turn}"}]
        assert len(seen) == 1
        text = (await client.get("/metrics")).text
        values = {line.split(" ")[0]: float(line.split(" ")[1]) for line in text.splitlines() if line[0] != "#"}
        assert values["tgi_router_expected_bytes_total"] > 0.6 * values["tgi_router_prompt_bytes_total"]
        assert sum(value for name, value in values.items() if name.startswith("tgi_router_choices_total")) == 5
        hits = f'tgi_router_replica_prefix_hit_tokens_total{{replica="{stubs[0].url}"}}'
        assert values[hits] == 40
        assert "aaa" not in text


async def test_too_large_bodies_are_refused() -> None:
    stub = Stub(ok)
    async with routed([stub], payload_limit=1000) as (client, _):
        assert (await client.post("/generate", content=b"x" * 2000)).status_code == 413
        assert not stub.requests


async def test_bodies_that_are_not_json_are_passed_on() -> None:
    stub = Stub(ok)
    async with routed([stub]) as (client, _):
        for body in (b"", b"not json", b"[1]", b'{"messages": 3}', b'{"messages": [1]}', b"\xff", b"[" * 5000):
            assert (await client.post("/v1/chat/completions", content=body)).status_code == 200
            assert stub.requests[-1].body == body


async def test_closed_idle_connections_are_no_failures() -> None:
    """The replica closed it just when the next request came: that is told from a crash."""

    async def last(exchange: Exchange) -> None:
        await exchange.answer(b"{}")
        exchange.writer.close()

    async with routed([Stub(last)]) as (client, router):
        for _ in range(5):
            assert (await client.post("/generate", json={"inputs": "x"})).status_code == 200
        assert router.metrics.retries.labels("lost")._value.get() == 0


async def test_options_and_own_errors_have_cors_headers() -> None:
    async with routed([Stub(ok)], api_keys=("k",)) as (client, _):
        answer = await client.options("/generate", headers={"origin": "http://page"})
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "*"
        answer = await client.post("/generate", json={}, headers={"origin": "http://page"})
        assert answer.status_code == 401 and answer.headers["access-control-allow-origin"] == "*"


async def test_head_has_no_body() -> None:
    async def head(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")

    async with routed([Stub(head)]) as (client, _):
        answer = await client.head("/info")
        assert answer.status_code == 200 and answer.content == b""


async def test_the_first_byte_is_not_held_up() -> None:
    """Best of many against the stub itself: the machine that tests this may be busy."""
    async with routed([Stub(events)]) as (client, router):
        async with httpx.AsyncClient(base_url=router.replicas[0].url, trust_env=False) as direct:
            best = {}
            for name, one in (("routed", client), ("direct", direct)) * 15:
                begin = time.perf_counter()
                async with one.stream("POST", "/v1/chat/completions", json=CHAT) as answer:
                    await anext(answer.aiter_raw())
                    took = time.perf_counter() - begin
                    best[name] = min(best.get(name, 9.0), took)
        assert best["routed"] - best["direct"] < 0.02, json.dumps(best)
