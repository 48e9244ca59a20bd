"""Replicas that come and go while the router runs: added, drained, removed, found by a file or a name, waited for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.replicas.stub import Exchange, Stub, routed, routed_urls, until
from tests.replicas.test_choice import blocks
from tgi.errors import ArgumentError
from tgi.replicas import discovery
from tgi.replicas import replica as replica_module
from tgi.replicas.choice import Ask, Chooser
from tgi.replicas.figures import Figures, Fleet
from tgi.replicas.homes import Homes
from tgi.replicas.index import PrefixIndex
from tgi.replicas.models import Models
from tgi.replicas.router import Router
from tgi.replicas.starts import Starts

CHAT = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "BEAT_S", 0.05)


async def ok(exchange: Exchange) -> None:
    await exchange.answer(b"{}")


class Slow:
    """Answers with a stream whose second event waits for a word."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.piece(b"data: 1\n\n")
        await self.go.wait()
        await exchange.piece(b"data: 2\n\n")
        await exchange.end()


def urls(router: Router) -> set[str]:
    return {replica.url for replica in router.replicas}


async def post(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=CHAT)


def test_a_number_given_to_another_replica_holds_nothing() -> None:
    one = Chooser(Fleet(2), PrefixIndex(2, blocks=1 << 12), Homes(["a", "b"]))
    allowed = np_only(0, 2)
    first = one.choose(Ask(blocks(1)), allowed)
    assert first is not None
    one.fleet.tell(0, Figures(running=3, queued_tokens=5000, cache_usage=1.0, computed_tokens=9000))
    again = one.choose(Ask(blocks(1)), allowed)
    assert again is not None and again.expected > 0
    one.renew(0, "c")
    fleet = one.fleet
    assert (fleet.running[0], fleet.queued[0], fleet.cache_usage[0]) == (0, 0, 0)
    fresh = one.choose(Ask(blocks(1)), allowed)
    assert fresh is not None and fresh.expected == 0
    fleet.ended(first.sent)
    assert fleet.running[0] == 1, "an answer of the old one says nothing about the new one"


def np_only(number: int, size: int) -> Any:
    import numpy as np

    return np.arange(size) == number


def test_growing_keeps_what_is_known() -> None:
    one = Chooser(Fleet(1), PrefixIndex(1, blocks=1 << 12), Homes(["a"]))
    first = one.choose(Ask(blocks(1)), np_only(0, 1))
    one.grow(3)
    one.renew(1, "b")
    one.renew(2, "c")
    assert first is not None and len(one.fleet) == 3
    again = one.choose(Ask(blocks(1)), np_only(0, 3))
    assert again is not None and again.replica == 0 and again.expected > 3500
    moved = one.choose(Ask(blocks(1)), np_only(2, 3))
    assert moved is not None and moved.replica == 2 and moved.expected == 0


async def test_a_replica_that_comes_is_used_and_one_that_goes_is_not() -> None:
    first, second = Stub(ok), Stub(ok)
    async with second, routed([first]) as (client, router):
        router.replicas.add(second.url)
        await until(lambda: sum(replica.up for replica in router.replicas) == 2)
        router.replicas.drain(first.url)
        assert urls(router) == {second.url}, "nothing was open there"
        for _ in range(5):
            assert (await post(client)).status_code == 200
        assert len(second.requests) == 5 and not first.requests
        assert first.url not in (await client.get("/metrics")).text


async def test_a_drained_replica_ends_its_stream_and_gets_nothing_new() -> None:
    slow = Slow()
    old, new = Stub(slow), Stub(ok)
    async with new, routed([old]) as (client, router):
        async with client.stream("POST", "/v1/chat/completions", json=CHAT) as answer:
            pieces = answer.aiter_raw()
            assert await anext(pieces) == b"data: 1\n\n"
            router.replicas.set([new.url])
            assert urls(router) == {old.url, new.url}
            await until(lambda: any(replica.up for replica in router.replicas))
            assert (await post(client)).status_code == 200
            assert len(old.requests) == 1
            slow.go.set()
            assert b"".join([piece async for piece in pieces]) == b"data: 2\n\n"
        await until(lambda: urls(router) == {new.url})


async def test_a_replica_that_is_named_again_is_used_again() -> None:
    slow = Slow()
    async with routed([Stub(slow)]) as (client, router):
        (replica,) = router.replicas
        async with client.stream("POST", "/v1/chat/completions", json=CHAT) as answer:
            await anext(answer.aiter_raw())
            router.replicas.set([])
            assert replica.draining and not replica.up
            assert (await post(client)).status_code == 503
            router.replicas.set([replica.url])
            slow.go.set()
            await until(lambda: replica.up)
        assert urls(router) == {replica.url}


async def test_removing_ends_streams_with_an_error_event() -> None:
    async with routed([Stub(Slow())]) as (client, router):
        async with client.stream("POST", "/v1/chat/completions", json=CHAT) as answer:
            pieces = answer.aiter_raw()
            await anext(pieces)
            (replica,) = router.replicas
            router.replicas.remove(replica.url)
            assert b"lost" in b"".join([piece async for piece in pieces])
        assert not len(router.replicas)
        await until(lambda: not router.open_requests)


async def test_numbers_are_given_again() -> None:
    stubs = [Stub(ok) for _ in range(4)]
    async with routed(stubs) as (client, router):
        for turn in range(1, 4):
            router.replicas.set([stub.url for stub in stubs[turn:]])
            router.replicas.set([stub.url for stub in stubs])
        assert sorted(replica.number for replica in router.replicas) == [0, 1, 2, 3]
        await until(lambda: all(replica.up for replica in router.replicas))
        assert (await post(client)).status_code == 200


@asynccontextmanager
async def following(router: Router, source: discovery.Source) -> AsyncIterator[None]:
    task = asyncio.create_task(discovery.follow(router.replicas, [], [source], every_s=0.02))
    try:
        yield
    finally:
        task.cancel()


async def test_a_file_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    listed = tmp_path / "replicas.txt"
    listed.write_text("# none yet\n\n")
    source = discovery.source_of(str(listed))
    async with Stub(ok) as one, Stub(ok) as other, routed_urls([]) as (client, router), following(router, source):
        assert (await post(client)).status_code == 503
        listed.write_text(f"{one.url}\n{other.url.removeprefix('http://')}\n")
        await until(lambda: sum(replica.up for replica in router.replicas) == 2)
        listed.write_text(f"{other.url}\nftp://x\n")
        await until(lambda: "stays as it is" in caplog.text)
        await asyncio.sleep(0.1)
        assert len(router.replicas) == 2 and caplog.text.count("stays as it is") == 1
        listed.write_text(f"{other.url}\n")
        await until(lambda: urls(router) == {other.url})
        listed.unlink()
        await until(lambda: caplog.text.count("stays as it is") == 2)
        assert (await post(client)).status_code == 200


async def test_a_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] | OSError = ["10.0.0.7", "10.0.0.8", "10.0.0.7", "fd00::1"]

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        assert (host, port) == ("tgi-servers", 8080)
        if isinstance(found, OSError):
            raise found
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    source = discovery.source_of("http://tgi-servers:8080")
    assert await source() == ["http://10.0.0.7:8080", "http://10.0.0.8:8080", "http://[fd00::1]:8080"]
    found = OSError("Name or service not known")
    with pytest.raises(discovery.DiscoveryError, match="tgi-servers"):
        await source()


@pytest.mark.parametrize("word", ["no-such-file", "http://", "http://host", "http://host:1/path"])
def test_what_names_no_replicas_is_refused(word: str) -> None:
    with pytest.raises(ArgumentError):
        discovery.source_of(word)


async def test_a_request_waits_for_a_replica_and_says_so() -> None:
    asked = []

    async def wake(model: str) -> None:
        asked.append(model)
        await asyncio.sleep(0.2)
        router.replicas.add(stub.url)
        await asyncio.sleep(9)

    async with Stub(ok, model="small") as stub, routed_urls([], starts=Starts(5.0, wake)) as (client, router):
        router.models.expect(["small"])
        assert (await client.get("/v1/models")).json()["data"][0]["id"] == "small"
        assert (await client.get("/health")).status_code == 200
        answers = await asyncio.gather(*(post(client) for _ in range(5)))
        assert [answer.status_code for answer in answers] == [200] * 5
        assert all(float(answer.headers["x-tgi-waited"]) > 0 for answer in answers)
        assert asked == ["small"], "one question for all of them"
        assert "x-tgi-waited" not in (await post(client)).headers
        unknown = await client.post("/v1/chat/completions", json={**CHAT, "model": "large"})
        assert unknown.status_code == 200, "the only model is asked whatever its name"


async def test_waiting_is_bounded() -> None:
    async with routed_urls([], starts=Starts(0.3)) as (client, router):
        router.models.expect(["small"])
        answer = await post(client)
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        assert 0.25 < float(answer.headers["x-tgi-waited"]) < 3
        assert 'tgi_router_waits_total{outcome="in vain"} 1.0' in (await client.get("/metrics")).text


async def test_a_request_whose_only_replica_is_replaced_waits_for_the_next_one() -> None:
    """It was not begun there: 503, or no answer at all."""

    async def ends(exchange: Exchange) -> None:
        await exchange.answer(b"{}", 503)

    async def breaks(exchange: Exchange) -> None:
        old.kill()

    for last in (ends, breaks):
        old = Stub(last)
        async with Stub(ok) as new, routed([old], starts=Starts(5.0)) as (client, router):
            asking = asyncio.create_task(post(client))
            await asyncio.sleep(0.3)
            router.replicas.set([new.url])
            answer = await asking
            assert answer.status_code == 200 and float(answer.headers["x-tgi-waited"]) > 0.1


def test_models_go_with_their_last_replica_unless_expected() -> None:
    router = Router(["http://10.0.0.1:80", "http://10.0.0.2:80"])
    for replica, name in zip(router.replicas, ("a", "b"), strict=True):
        replica.models = {name: {"id": name}}
    models = Models()
    models.expect(["b", "c"])
    models.refresh(list(router.replicas))
    assert [entry["id"] for entry in models.entries] == ["b", "c", "a"]
    models.refresh([])
    assert [entry["id"] for entry in models.entries] == ["b", "c"]
    assert models.find("c").usable(2).tolist() == [False, False]
