"""When requests are sent, what they ask for, and what is found out about a server beforehand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.bench_server import Exchange, FakeServer, tgi, tgi_token, words
from tgi.bench.dialects import Ask, OpenAI, Tgi
from tgi.bench.errors import BenchError
from tgi.bench.http import Client
from tgi.bench.load import GIVE_UP, Arrivals, Level, Load, Progress, Source, run
from tgi.bench.prompts import Lengths, Scale, ids, text
from tgi.bench.target import Target, find


class Gate:
    """A server that answers when told; knows how many requests wait."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0
        self.came = asyncio.Condition()
        self.let = asyncio.Semaphore(0)

    async def __call__(self, exchange: Exchange) -> None:
        async with self.came:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            self.came.notify_all()
        await self.let.acquire()
        self.waiting -= 1
        await exchange.head()
        await exchange.event(tgi_token(1), tgi_token(2, last=(2, 1)))
        await exchange.end()

    async def until(self, waiting: int) -> None:
        async with self.came:
            await asyncio.wait_for(self.came.wait_for(lambda: self.waiting == waiting), 10)


async def level(load: Load, gate: Gate, play: Callable[[Gate, Progress], Any] | None = None) -> Level:
    """Run a load against a gate while `play` opens it; without one it is open."""
    if play is None:
        gate.let = asyncio.Semaphore(1000)
    async with FakeServer(gate) as server, Client(server.url) as client:
        target, progress = Target(client, Tgi(), "m"), Progress()
        ask = Ask("a", 1, 2)
        drawn = (ask, target.dialect.body(ask))
        working = asyncio.create_task(run(target, load, lambda: drawn, random.Random(0), progress))
        if play is not None:
            await play(gate, progress)
        result = await asyncio.wait_for(working, 10)
        gate.let = asyncio.Semaphore(1000)
        return result


async def test_closed_loop_sends_one_for_each_that_ended() -> None:
    async def play(gate: Gate, progress: Progress) -> None:
        await gate.until(2)
        for _ in range(3):
            gate.let.release()
            await gate.until(1)
            await gate.until(2)
        gate.let.release()
        gate.let.release()

    gate = Gate()
    result = await level(Load(2, requests=5), gate, play)
    assert gate.most == 2 and len(result.records) == 5 and all(record.ok for record in result.records)
    assert not result.stopped and result.wall > 0


async def test_bursts_wait_for_the_last_to_end() -> None:
    async def play(gate: Gate, progress: Progress) -> None:
        await gate.until(3)
        gate.let.release()
        gate.let.release()
        await gate.until(1)
        assert progress.done <= 2 and len(progress.records) == 3
        gate.let.release()
        await gate.until(2)  # what is left of 5
        gate.let.release()
        gate.let.release()

    gate = Gate()
    result = await level(Load(3, arrivals="burst", requests=5), gate, play)
    assert gate.most == 3 and len(result.records) == 5


async def test_a_rate_does_not_wait_for_answers() -> None:
    async def play(gate: Gate, progress: Progress) -> None:
        await gate.until(6)
        for _ in range(6):
            gate.let.release()

    gate = Gate()
    result = await level(Load(rate=1000.0, requests=6), gate, play)
    assert gate.most == 6 and all(record.ok for record in result.records)
    moments = [record.sent for record in result.records]
    expected, rng, due = [], random.Random(0), 0.0
    for _ in range(6):
        due += rng.expovariate(1000.0)
        expected.append(due)
    moments.sort()
    assert [moment - moments[0] for moment in moments] == pytest.approx([due - expected[0] for due in expected])


@pytest.mark.parametrize("arrivals", ["closed", "burst"])
async def test_a_duration_ends_it_and_lets_what_runs_finish(arrivals: Arrivals) -> None:
    result = await level(Load(2, arrivals=arrivals, duration=0.05), Gate())
    assert result.records and all(record.ok for record in result.records) and not result.stopped


async def test_stopping_drops_what_is_in_flight() -> None:
    async def play(gate: Gate, progress: Progress) -> None:
        await gate.until(2)
        gate.let.release()
        await gate.until(1)
        await gate.until(2)
        progress.stop.set()

    result = await level(Load(2, requests=100), Gate(), play)
    assert result.stopped and len(result.records) == 1 and result.records[0].ok


async def test_failures_are_records_and_the_load_goes_on() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.json({"error": "Model is overloaded", "error_type": "overloaded"}, 429)

    async with FakeServer(handler) as server, Client(server.url) as client:
        target, progress = Target(client, Tgi(), "m"), Progress()
        drawn = (Ask("a", 1, 2), b"{}")
        result = await run(target, Load(2, requests=4), lambda: drawn, random.Random(0), progress)
    assert [record.error for record in result.records] == [("HTTP 429", "Model is overloaded")] * 4
    assert progress.errors == progress.done == 4


async def test_a_server_that_is_gone_does_not_keep_the_client_busy() -> None:
    async with FakeServer(tgi) as server:
        url = server.url
    async with Client(url) as client:
        target, progress = Target(client, Tgi(), "m"), Progress()
        drawn = (Ask("a", 1, 2), b"{}")
        result = await run(target, Load(4, duration=60), lambda: drawn, random.Random(0), progress)
    assert GIVE_UP <= len(result.records) <= GIVE_UP + 4
    assert {record.error and record.error[0] for record in result.records} == {"connection refused"}


# -- what is asked for


def source(name: str = "tgi", prompts: str = "20", scale: Scale | None = None, **options: Any) -> Source:
    dialect = Tgi() if name == "tgi" else OpenAI(name, "m")  # type: ignore[arg-type]
    rng, outputs = random.Random(3), Lengths(4, 9)
    return Source(rng, dialect, scale or Scale(), Lengths.parse(prompts), outputs, **options)


def test_prompts_are_distinct_and_long_enough_to_be_cut() -> None:
    from_one = source()
    asks = [from_one.draw()[0] for _ in range(50)]
    starts = {" ".join(str(ask.prompt).split()[-20:][:8]) for ask in asks}
    assert len(starts) == 50  # what the server keeps differs from its beginning on
    assert all(ask.cut and ask.prompt_tokens == 20 and words(str(ask.prompt)) >= 20 for ask in asks)
    assert {ask.new_tokens for ask in asks} == set(range(4, 10))


def test_without_truncation_words_are_counted() -> None:
    ask, _ = source("openai-chat", "100:100", Scale(per_word=1.25, fixed=10)).draw()
    assert words(str(ask.prompt)) == 72 and not ask.cut


def test_a_shared_prefix_is_the_same_and_the_rest_is_not() -> None:
    from_one = source(prompts="40", shared_prefix=30)
    first, second = (str(from_one.draw()[0].prompt).split() for _ in range(2))
    assert len(first) == len(second) == 40 and first[:30] == second[:30] and first[30:] != second[30:]
    assert not from_one.draw()[0].cut  # the server would cut the prefix off


def test_token_ids() -> None:
    from_one = source("openai-completions", "16", vocabulary=1000, shared_prefix=4)
    first, second = from_one.draw()[0].prompt, from_one.draw()[0].prompt
    assert len(first) == len(second) == 16 and first[:4] == second[:4] and first[4:] != second[4:]
    assert all(300 <= one < 1000 for one in [*first, *second])  # type: ignore[operator]
    assert all(0 <= one < 3 for one in ids(random.Random(0), 50, 3))


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 1000))
def test_lengths_are_drawn_from_their_range(one: int, other: int, seed: int) -> None:
    low, high = sorted((one, other))
    lengths = Lengths.parse(f"{low}:{high}")
    assert low <= lengths.draw(random.Random(seed)) <= high
    assert Lengths.parse(str(lengths)) == lengths


@pytest.mark.parametrize("word", ["", "0", "x", "5:4", "0:4", "1:2:3", "-1", "1.5", "99999999"])
def test_lengths_that_cannot_be(word: str) -> None:
    with pytest.raises(ValueError):
        Lengths.parse(word)


@given(st.floats(0.5, 5), st.integers(0, 30), st.integers(40, 2000))
def test_a_scale_is_found_from_two_prompts(per_word: float, fixed: int, tokens: int) -> None:
    few, many = ((count, fixed + round(count * per_word)) for count in (16, 48))
    scale = Scale.of(few, many)
    made = fixed + round(scale.words(tokens) * per_word)
    assert abs(made - tokens) <= 3 + 0.05 * tokens / min(per_word, 1)
    assert fixed + scale.enough_words(tokens) * per_word >= tokens


# -- what is found out


def openai(
    models: Any = ("m",), tokens: int = 2, refuse: frozenset[str] = frozenset(), chat_only: bool = False
) -> Callable[[Exchange], Any]:
    """An OpenAI-compatible server whose words make so many tokens, and 3 more a prompt."""

    async def handler(exchange: Exchange) -> None:
        if exchange.path == "/v1/models" and models is not None:
            await exchange.json({"object": "list", "data": [{"id": name} for name in models]})
        elif exchange.path == "/v1/chat/completions" or (exchange.path == "/v1/completions" and not chat_only):
            unknown = refuse & {*exchange.body, *exchange.body["stream_options"]}
            if unknown:
                await exchange.json({"error": {"message": f"Unrecognized request argument: {unknown}"}}, 400)
                return
            chat = exchange.path != "/v1/completions"
            prompt = exchange.body["messages"][0]["content"] if chat else exchange.body["prompt"]
            choice: dict[str, Any] = {"delta": {"content": "a"}} if chat else {"text": "a"}
            usage = {"prompt_tokens": 3 + tokens * words(prompt), "completion_tokens": 1}
            await exchange.head()
            await exchange.event({"choices": [{**choice, "finish_reason": "length"}]})
            await exchange.event({"choices": [], "usage": usage}, "[DONE]")
            await exchange.end()
        else:
            await exchange.json({"detail": "Not Found"}, 404)

    return handler


async def found(handler: Any, api: Any = None, model: str | None = None, path: str = "", **extra: Any) -> Target:
    rng = random.Random(0)
    async with FakeServer(handler) as server, Client(server.url + path) as client:
        return await find(client, api, model, extra, text=lambda count: text(rng, count))


async def test_finds_tgi() -> None:
    target = await found(tgi)
    assert (target.dialect.name, target.model, target.notes) == ("tgi", "fake/model", ())
    assert target.scale == Scale(1.0, 0.0)


async def test_finds_openai_and_the_length_of_its_words() -> None:
    target = await found(openai(("big", "small")))
    assert (target.dialect.name, target.model) == ("openai-completions", "big")
    assert target.scale == Scale(2.0, 3.0) and target.scale.words(103) == 50
    assert (await found(openai(("big", "small")), model="small")).model == "small"
    assert (await found(openai(), "openai-chat", path="/v1")).dialect.name == "openai-chat"


async def test_falls_back_to_chat() -> None:
    assert (await found(openai(chat_only=True))).dialect.name == "openai-chat"


async def test_falls_back_to_openais_own_fields() -> None:
    target = await found(openai(refuse=frozenset({"ignore_eos", "continuous_usage_stats"})), "openai-chat")
    assert isinstance(target.dialect, OpenAI) and target.dialect.plain
    assert target.notes == ("the server takes OpenAI's own fields only: without ignore_eos answers may be short",)


async def test_without_usage_a_word_is_a_token() -> None:
    target = await found(openai(tokens=0))
    assert target.scale == Scale() and "a word is taken for a token" in target.notes[0]


def status(number: int) -> Callable[[Exchange], Any]:
    return lambda exchange: exchange.json({"error": "no"}, number)


async def keyed(exchange: Exchange) -> None:
    """Open /info, closed generation, as ours with an API key."""
    await (tgi(exchange) if exchange.path == "/info" else exchange.json({"error": "unauthorized"}, 401))


@pytest.mark.parametrize(
    ("handler", "api", "model", "sentence"),
    [
        (status(404), None, None, "answers, but neither as TGI .*address right"),
        (status(401), None, None, "refuses the API key .*401"),
        (keyed, None, None, "refuses the API key .*401.*: unauthorized; give the right one with --api-key"),
        (tgi, None, "other", "model 'other' is not there: the server serves 'fake/model'"),
        (openai(), None, "other", "model 'other' is not there: the server lists 'm'"),
        (openai(None), "openai-chat", None, "does not list its models .*--model"),
        (openai(()), None, None, "neither as TGI"),
        (status(404), "tgi", None, "no such route or model .*404.*address right"),
        (status(500), "tgi", None, "refuses the first request .*500.*: no"),
        (lambda exchange: exchange.raw(b"220 mail ready\r\n"), None, None, "not HTTP"),
    ],
)
async def test_what_cannot_be_measured(handler: Any, api: Any, model: str | None, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        await found(handler, api, model)


async def test_a_model_can_be_named_where_none_is_listed() -> None:
    assert (await found(openai(None), "openai-chat", "mine")).model == "mine"
