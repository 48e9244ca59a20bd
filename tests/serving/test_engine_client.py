"""The engine's client over a real socket: many requests at once, readers that leave, an engine that dies."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing

import pytest

from tests.fake_engine import FakePeer, Play, Script, engine_info
from tgi.errors import EngineLostError, GenerationError, StartupError
from tgi.messages import Abort, Begun, EmbedRequest, GenerateRequest, Sampling, StepOutput, StepStats, Token, TokenEvent
from tgi.serving.engine_client import EngineClient, Mailbox


def request(number: int, samples: int = 1, tokens: int = 10) -> GenerateRequest:
    return GenerateRequest(number, [1, 2, number], Sampling(max_new_tokens=tokens), tuple(range(samples)))


async def collect(client: EngineClient, message: GenerateRequest) -> dict[int, list[int]]:
    ids: dict[int, list[int]] = {index: [] for index in range(len(message.seeds))}
    async for events in client.generate(message):
        for event in events:
            ids[event.index] += [token.id for token in event.tokens]
    return ids


async def until(condition) -> None:
    """Let the loop run until a condition holds; the test's time limit bounds it."""
    while not condition():  # noqa: ASYNC110 (conditions on other objects have no event)
        await asyncio.sleep(0.001)


@pytest.fixture
async def connect(tmp_path):
    """A started client and its peer, which plays as told."""
    opened = []

    async def open_pair(play: Play, ready: bool = True) -> tuple[EngineClient, FakePeer]:
        address = f"ipc://{tmp_path}/engine"
        client = EngineClient(address)
        await client.start()
        peer = FakePeer(address, play)
        opened.append((client, peer))
        if ready:
            await peer.ready()
            await client.wait_ready(10)
        return client, peer

    yield open_pair
    for client, peer in opened:
        await client.close()
        await peer.close()


def countdown(message: GenerateRequest, index: int) -> Script:
    """Ids that tell request and sample."""
    return Script([message.request_id * 100 + index * 10 + n for n in range(5)], finish="eos_token")


async def test_ready_carries_the_engine_info(connect):
    client, peer = await connect(countdown, ready=False)
    assert not client.alive
    await peer.ready()
    assert await client.wait_ready(10) == engine_info() == client.info
    assert client.alive


async def test_128_requests_at_once_get_their_own_tokens(connect):
    client, _ = await connect(countdown)
    results = await asyncio.gather(*(collect(client, request(n, samples=1 + n % 3)) for n in range(128)))
    for number, result in enumerate(results):
        assert result == {i: [number * 100 + i * 10 + n for n in range(5)] for i in range(1 + number % 3)}
    assert client.open_requests == 0


async def test_readers_that_leave_abort_and_harm_nobody(connect):
    rng = random.Random(0)
    client, peer = await connect(
        lambda message, index: Script(list(range(200)), delay_s=0.001 if message.request_id % 2 else 0)
    )

    async def leave(number: int) -> None:
        seen = 0
        async with aclosing(client.generate(request(number, samples=2, tokens=200))) as batches:
            async for events in batches:
                seen += sum(len(event.tokens) for event in events)
                if seen >= stay[number]:
                    return

    stay = {number: rng.randint(1, 50) for number in range(1, 128, 2)}
    stayers = [collect(client, request(number, tokens=200)) for number in range(0, 128, 2)]
    leavers = [asyncio.create_task(leave(number)) for number in stay]
    cancelled = rng.sample(leavers, 20)
    gathered = asyncio.gather(*stayers)
    await asyncio.sleep(0)
    for task in cancelled:
        task.cancel()
    assert all(result == {0: list(range(200))} for result in await gathered)
    await asyncio.gather(*leavers, return_exceptions=True)
    await until(lambda: not peer.running)
    assert client.open_requests == 0
    aborted = {message.request_id for message in peer.received if isinstance(message, Abort)}
    assert aborted <= set(stay)
    assert len(aborted) >= len(stay) - len(cancelled)


async def test_a_finished_request_is_not_aborted(connect):
    client, peer = await connect(countdown)
    await collect(client, request(1))
    await collect(client, request(2))
    assert not [message for message in peer.received if isinstance(message, Abort)]


async def test_abort_of_one_sample_leaves_the_others(connect):
    client, peer = await connect(lambda message, index: Script(list(range(30)), delay_s=0.001))
    ids = {0: 0, 1: 0}
    async for events in client.generate(request(1, samples=2, tokens=30)):
        for event in events:
            ids[event.index] += len(event.tokens)
        if ids[0] >= 3 and Abort(1, 0) not in peer.received:
            client.abort(1, 0)
            await until(lambda: Abort(1, 0) in peer.received)
    assert ids[1] == 30
    assert 3 <= ids[0] < 30
    client.abort(1, 0)  # a finished request: nothing happens
    client.abort(99)


async def test_a_dying_engine_fails_every_open_request_at_once(connect):
    client, peer = await connect(lambda message, index: Script(list(range(100)), hang_after=message.request_id % 5))
    tasks = [asyncio.create_task(collect(client, request(n, tokens=100))) for n in range(64)]
    await until(lambda: len(peer.received) == 64)
    await peer.fail("out of memory")
    for number, result in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
        assert isinstance(result, GenerationError)
        assert number % 5 or isinstance(result, EngineLostError), "had no token"
        assert result.text == "Request failed during generation: Server error: out of memory"
    assert not client.alive
    with pytest.raises(EngineLostError, match="out of memory"):
        await collect(client, request(999))
    assert client.open_requests == 0


async def test_a_lost_process_fails_open_requests_after_what_has_come(connect):
    client, _ = await connect(lambda message, index: Script([7, 8, 9], hang_after=2))
    batches = client.generate(request(1))
    seen: list[int] = []
    with pytest.raises(GenerationError, match="killed by signal 9") as caught:
        async for events in batches:
            seen += [token.id for event in events for token in event.tokens]
            if len(seen) == 2:
                client.engine_lost("the engine was killed by signal 9")
                client.engine_lost("a second reason does not count")
    assert seen == [7, 8] and not isinstance(caught.value, EngineLostError)


async def test_a_slow_reader_gets_merged_events(connect):
    client, _ = await connect(lambda message, index: Script(list(range(500)), finish="eos_token"))
    batches = client.generate(request(1, tokens=501))
    first = await anext(batches)
    other = await collect(client, request(2, tokens=501))  # runs beside, to its end
    rest = [events async for events in batches]
    assert len(rest) < 10
    assert [token.id for events in [first, *rest] for event in events for token in event.tokens] == other[0]
    assert [first, *rest][-1][-1].finish == "eos_token"


async def test_start_failures_are_sentences(connect, tmp_path):
    client, peer = await connect(countdown, ready=False)
    with pytest.raises(StartupError, match="not ready after 0 s"):
        await client.wait_ready(0.01)
    await peer.fail("model type x is not supported")
    with pytest.raises(StartupError, match="model type x is not supported"):
        await client.wait_ready(10)


async def test_how_far_a_request_is(connect):
    client, _ = await connect(countdown)
    news: list[object] = []
    client.on_begun, client.on_first_token = news.append, news.append
    await collect(client, request(3, samples=2))
    begun, first = news
    assert isinstance(begun, Begun) and begun.request_ids == [3]
    assert first == 3, "of all its samples the first token is told of"


async def test_heartbeat_counts_steps_not_messages(connect):
    client, peer = await connect(countdown)
    steps: list[StepStats] = []
    client.on_step = steps.append

    async def tell(**stats: int) -> float:
        count = len(steps)
        before = client.last_step_at
        await peer.send(StepOutput([], StepStats(**stats)))
        await until(lambda: len(steps) > count)
        return client.last_step_at - before

    assert await tell(step=1, running=1) > 0
    assert await tell(step=1, running=1) == 0  # a message, no step, and work to do
    assert await tell(step=1) > 0  # idle
    assert await tell(step=2, waiting=1) > 0
    assert client.stats == StepStats(step=2, waiting=1)


async def test_an_unreadable_message_is_the_end_of_the_engine(connect):
    client, peer = await connect(countdown)
    await peer._socket.send(b"\xc1")
    await until(lambda: not client.alive)
    with pytest.raises(GenerationError, match="cannot be read"):
        await collect(client, request(1))


async def test_mailbox_merges_and_ends():
    mailbox = Mailbox(2)
    mailbox.put(TokenEvent(1, 0, [Token(1, -1.0)], scheduled=5.0, cached_tokens=3))
    mailbox.put(TokenEvent(1, 0, [Token(2, -1.0)], "eos_token"))
    mailbox.put(TokenEvent(1, 0, [Token(3, -1.0)]))  # after the end: dropped
    (event,) = await mailbox.take()
    assert event == TokenEvent(1, 0, [Token(1, -1.0), Token(2, -1.0)], "eos_token", scheduled=5.0, cached_tokens=3)
    assert not mailbox.ended
    mailbox.abandon(1)
    assert await mailbox.take() == []
    assert mailbox.ended
    mailbox.fail("too late to matter")
    assert mailbox.ended


async def test_a_vector_is_one_event_and_leaving_aborts_it(connect):
    client, peer = await connect(countdown)
    event = await client.embed(EmbedRequest(1, [5], "mean"))
    assert event.finish == "pooled" and event.embedding == bytes(4)
    peer.embeds = False
    task = asyncio.create_task(client.embed(EmbedRequest(2, [5], "mean")))
    await until(lambda: len(peer.received) == 2)
    task.cancel()
    await until(lambda: Abort(2) in peer.received)
    assert client.open_requests == 0 and Abort(1) not in peer.received
    lost = asyncio.create_task(client.embed(EmbedRequest(3, [5], "mean")))
    await until(lambda: client.open_requests)
    client.engine_lost("gone")
    with pytest.raises(GenerationError, match="gone"):
        await lost
