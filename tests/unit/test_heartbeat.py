"""An engine that gives no sign of life: its requests fail, none is taken, and all goes on when it is back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fake_engine import FakePeer, Script
from tgi import heartbeat
from tgi.errors import GenerationError
from tgi.heartbeat import BEAT_S, OVERDUE_S, Pulse, path_of
from tgi.messages import Abort, GenerateRequest, Sampling
from tgi.serving import engine_client
from tgi.serving.engine_client import EngineClient


class Heart:
    """Beats only when told to."""

    def __init__(self, address: str) -> None:
        self._path, self._socket = path_of(address), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def beat(self) -> None:
        with contextlib.suppress(BlockingIOError):  # ten wait at most
            self._socket.sendto(b".", socket.MSG_DONTWAIT, self._path)


def request(number: int, tokens: int = 3) -> GenerateRequest:
    return GenerateRequest(number, [1, 2], Sampling(max_new_tokens=tokens), (0,))


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[EngineClient, FakePeer, Heart]]:
    """A client whose patience is a tenth of a second, its peer, and the peer's heart."""
    monkeypatch.setattr(engine_client, "BEAT_S", 0.01)
    monkeypatch.setattr(engine_client, "OVERDUE_S", 0.1)
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.01)
    address = f"ipc://{tmp_path}/engine"
    client = EngineClient(address)
    await client.start()
    peer = FakePeer(address, lambda request, index: Script([7] * 100, delay_s=0.0 if request.request_id else 1e9))
    await peer.ready()
    await client.wait_ready(10)
    yield client, peer, Heart(address)
    await client.close()
    await peer.close()


async def until(condition) -> None:
    while not condition():  # noqa: ASYNC110 (conditions on other objects have no event)
        await asyncio.sleep(0.001)


async def generate(client: EngineClient, message: GenerateRequest) -> int:
    return sum([len(event.tokens) async for events in client.generate(message) for event in events])


async def test_silence_fails_open_requests_and_its_end_takes_new_ones(pair, caplog) -> None:
    client, peer, heart = pair
    heart.beat()
    open_request = asyncio.create_task(generate(client, request(0)))
    await until(lambda: client.silent)
    with pytest.raises(GenerationError, match="sign of life"):
        await open_request
    assert not client.alive and client.open_requests == 0
    with pytest.raises(GenerationError, match="sign of life"):
        await generate(client, request(1))
    heart.beat()
    await until(lambda: client.alive)
    assert await generate(client, request(2)) == 3
    assert [message.request_id for message in peer.received if isinstance(message, Abort)] == [0]
    await until(lambda: client.silent)
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING, logging.ERROR]


async def test_an_idle_engine_is_missed_too(pair) -> None:
    client, _, heart = pair
    heart.beat()
    await until(lambda: client.silent)


async def test_an_engine_that_beats_is_never_missed(pair) -> None:
    client, _, heart = pair
    waiting = asyncio.create_task(generate(client, request(0)))
    for _ in range(30):
        heart.beat()
        await asyncio.sleep(0.01)
        assert client.alive
    assert not waiting.done()
    waiting.cancel()


async def test_what_dies_while_it_is_silent_is_dead(pair) -> None:
    client, _, heart = pair
    heart.beat()
    await until(lambda: client.silent)
    client.engine_lost("the engine process was killed")
    assert not client.silent and not client.alive
    with pytest.raises(GenerationError, match="killed"):
        await generate(client, request(1))


def test_a_pause_of_the_listener_is_no_silence(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/engine"
    pulse, heart = Pulse(address), Heart(address)
    try:
        assert [pulse.feel() for _ in range(100)] == [0.0] * 100, "an engine that has never beaten is not missed"
        heart.beat()
        assert [pulse.feel() for _ in range(3)] == [0.0, BEAT_S, 2 * BEAT_S]  # however long ago the last call was
        for _ in range(20):
            heart.beat()
        assert pulse.feel() == 0.0
        assert OVERDUE_S > 4 * BEAT_S
    finally:
        pulse.close()


def test_beating_needs_no_listener(tmp_path: Path) -> None:
    heartbeat.start_beating(f"ipc://{tmp_path}/nobody")
