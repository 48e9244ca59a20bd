"""No legal request holds the event loop for long, however many values its body has or its answer tells of."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from msgspec.structs import replace

from tests.api.fake import INFO, FakeEngine, build_app
from tests.small_tokenizers import write_checkpoint
from tgi import collector
from tgi.messages import GenerateRequest, PromptLogprobs
from tgi.serving.long_texts import LongTexts
from tgi.serving.tokenizer import Tokenizer

LONGEST_S = 0.05
SPEED_S = 0.12
"""What `_speed` takes on the machine that the bound was found on; slower ones get as much more."""
BODY_BYTES = 1_950_000


def full(head: str, item: str, tail: str) -> bytes:
    """`item` as often as it fits a body."""
    count = (BODY_BYTES - len(head) - len(tail)) // (len(item) + 1)
    return (head + ",".join([item] * count) + tail).encode()


def named(head: str, item: str, tail: str) -> bytes:
    """As `full`, in an object."""
    items = ",".join(f'"{number:06}":{item}' for number in range(BODY_BYTES // (len(item) + 11)))
    return (head + items + tail).encode()


def chat(field: str, item: str) -> bytes:
    return full('{"max_tokens":1,"messages":[{"role":"user","content":"a"}],' + field + "[", item, "]}")


def messages(item: str) -> bytes:
    return full('{"messages":[', item, "]}")


def first_message(field: str, item: str) -> bytes:
    return full('{"messages":[{"role":"user","content":"",' + field + "[", item, "]}]}")


CHAT, INFER = "/v1/chat/completions", "/v2/models/a/versions/1/infer"
CALL = '{"id":"","type":"","function":{"name":"","arguments":"{}"}}'
INPUT = '{"name":"","shape":[1],"datatype":"","data":[97]}'
OUTPUTS = '{"id":"","outputs":[{"name":""}],"parameters":{"max_new_tokens":1,"truncate":3},'
BODIES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "messages": (CHAT, lambda: messages('{"role":"user","content":"a"}')),
    "ids of a prompt": ("/v1/completions", lambda: full('{"max_tokens":1,"truncate":9,"prompt":[', "1", "]}")),
}
MORE_BODIES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "ids to embed": ("/v1/embeddings", lambda: full('{"input":[', "1", "]}")),
    "lists of ids to embed": ("/v1/embeddings", lambda: full('{"input":[', "[" + ",".join("1" * 480) + "]", "]}")),
    "texts to embed": ("/v1/embeddings", lambda: full('{"input":[', '"' + "a b c " * 160 + '"', "]}")),
    "content parts": (CHAT, lambda: first_message('"content":', '{"type":"text","text":"a"}')),
    "messages of no text": (CHAT, lambda: messages('{"role":"","content":[]}')),
    "unknown fields": (CHAT, lambda: messages('{"role":"u","content":"","x":1}')),
    "wrong messages": (CHAT, lambda: messages("{}")),
    "tool calls": (CHAT, lambda: first_message('"tool_calls":', CALL)),
    "tools": (CHAT, lambda: chat('"tool_choice":"none","tools":', "{}")),
    "stop token ids": (CHAT, lambda: chat('"stop_token_ids":', "1")),
    "biases": (CHAT, lambda: named('{"messages":[{"role":"user","content":"a"}],"logit_bias":{', "1", "}}")),
    "biases in a list": (CHAT, lambda: chat('"logit_bias":', "1")),
    "arguments": (CHAT, lambda: named('{"messages":[{"role":"u","content":""}],"chat_template_kwargs":{', "[]", "}}")),
    "unknown names": (CHAT, lambda: named('{"messages":[{"role":"user","content":"a"}],', "[]", "}")),
    "an unknown list": (CHAT, lambda: chat('"x":', '{"":[]}')),
    "a nested list": ("/generate", lambda: full('{"inputs":"a","x":' + "[" * 900, "[]", "]" * 900 + "}")),
    "a wrong body": ("/generate", lambda: full("[", "{}", "]")),
    "stop strings": ("/generate", lambda: full('{"inputs":"a","parameters":{"stop":[', '"a"', "]}}")),
    "prompts": ("/v1/completions", lambda: full('{"prompt":[', "[1]", "]}")),
    "instances": ("/vertex", lambda: full('{"instances":[', '{"messages":[]}', "]}")),
    "inputs": (INFER, lambda: full('{"id":"","outputs":[],"inputs":[', INPUT, "]}")),
    "bytes": (INFER, lambda: full(OUTPUTS + '"inputs":[{"name":"","shape":[],"datatype":"","data":[', "97", "]}]}")),
    "items": ("/v1/responses", lambda: full('{"input":[', '{"role":"user","content":"a"}', "]}")),
    "items that are kept": (
        "/v1/responses",
        lambda: full('{"max_output_tokens":1,"input":[{"role":"user","content":"a"},', '{"type":"other"}', "]}"),
    ),
    "tools of a response": ("/v1/responses", lambda: full('{"input":"a","tools":[', '{"type":"x"}', "]}")),
    "blocks": (
        "/v1/messages",
        lambda: full('{"max_tokens":1,"messages":[{"role":"user","content":[', '{"type":"text","text":"a"}', "]}]}"),
    ),
    "tokens of a conversation": ("/chat_tokenize", lambda: messages('{"role":"user","content":"a"}')),
}
LONG = "word " * 2_400
STREAM = {"stream": True}
ASKED = {"messages": [{"role": "user", "content": "a"}], "logprobs": True, "top_logprobs": 20}
BEST = {"best_of": 16, "do_sample": True, "details": True, "top_n_tokens": 20, "max_new_tokens": 300}
ANSWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "echo": ("/v1/completions", {"prompt": LONG, "echo": True, "logprobs": 20, "max_tokens": 1}),
    "samples of a chat": (CHAT, ASKED | {"n": 16, "max_tokens": 300}),
}
MORE_ANSWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "streamed echo": (
        "/v1/completions",
        {"prompt": LONG, "echo": True, "logprobs": 5, "max_tokens": 1, "stream": True},
    ),
    "prefill": ("/generate", {"inputs": LONG, "parameters": {"decoder_input_details": True, "max_new_tokens": 1}}),
    "samples of a completion": ("/v1/completions", {"prompt": "a", "logprobs": 20, "n": 16, "max_tokens": 300}),
    "best of many": ("/generate", {"inputs": "a", "parameters": BEST}),
}


class ReadyEngine(FakeEngine):
    """Its events are there when they are asked for again, so that their making holds up nobody."""

    def __init__(self) -> None:
        super().__init__(replace(INFO, max_input_tokens=16_000, max_total_tokens=16_400), "Hello world " * 30)
        self._samples = cache(lambda index, most, top: super(ReadyEngine, self)._sample(self._asked, index))
        self._prompts = cache(lambda length, count: super(ReadyEngine, self)._prompt(self._asked))

    def _sample(self, request: GenerateRequest, index: int) -> Any:
        self._asked = request
        return self._samples(index, request.sampling.max_new_tokens, request.sampling.top_n_tokens)

    def _prompt(self, request: GenerateRequest) -> PromptLogprobs:
        self._asked = request
        return self._prompts(len(request.prompt_ids), request.sampling.prompt_logprobs)


class Meter:
    """The longest time between two turns of the loop: of the clock's and of this process's the shorter."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        clock, worked = time.monotonic(), time.process_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.monotonic(), time.process_time()
            self.longest = max(self.longest, min(now[0] - clock, now[1] - worked))
            clock, worked = now


@pytest.fixture(autouse=True)
def settled() -> Iterator[None]:
    """As a server that serves: the test session's objects take no part in collections."""
    threshold = gc.get_threshold()
    collector.settle()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


@cache
def _speed() -> float:
    """Seconds that a known piece of work takes on this machine: a body decoded in one go."""
    body = full("[", "{}", "]")
    began = time.process_time()
    msgspec.json.decode(body)
    return time.process_time() - began


@asynccontextmanager
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(ReadyEngine(), max_top_n_tokens=20, max_best_of=16)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=300) as one:
        await one.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "a"}]})
        yield one


async def longest_stall(one: httpx.AsyncClient, path: str, body: bytes) -> float:
    meter = Meter()
    measuring = asyncio.create_task(meter.run())
    await asyncio.sleep(0.01)
    meter.longest = 0.0
    headers = {"content-type": "application/json"}
    async with one.stream("POST", path, content=body, headers=headers) as response:
        assert response.status_code in (200, 400, 422)
        await asyncio.sleep(0.01)  # the meter sees what came last
        of_the_answer = meter.longest
        async for _ in response.aiter_raw():  # the client joins all pieces here, which no server does
            pass
    await asyncio.sleep(0.01)
    meter.longest = of_the_answer
    await asyncio.sleep(0.02)  # what the request leaves behind is put away
    measuring.cancel()
    return meter.longest


async def check(one: httpx.AsyncClient, path: str, body: bytes) -> None:
    """The better of three, since a busy machine may hold up the loop, too."""
    bound = LONGEST_S * max(1.0, _speed() / SPEED_S)
    stalls = []
    for _ in range(3):
        stalls.append(await longest_stall(one, path, body))
        if stalls[-1] < bound:
            return
    pytest.fail(f"the event loop was held for {[round(stall, 3) for stall in stalls]} s, more than {bound:.3f} s")


def _cases(some: Iterable[str], more: Iterable[str]) -> list[Any]:
    return [*some, *(pytest.param(name, marks=pytest.mark.slow) for name in more)]


@pytest.mark.parametrize("name", _cases(BODIES, MORE_BODIES))
async def test_large_bodies(name: str) -> None:
    path, make = (BODIES | MORE_BODIES)[name]
    async with client() as one:
        await check(one, path, make())


@pytest.mark.parametrize("name", _cases(ANSWERS, MORE_ANSWERS))
async def test_large_answers(name: str) -> None:
    path, body = (ANSWERS | MORE_ANSWERS)[name]
    async with client() as one:
        await one.post(path, json=body)  # makes the engine's events
        await check(one, path, msgspec.json.encode(body))


@pytest.mark.slow
async def test_a_slow_reader_gets_all_its_text_at_once() -> None:
    path, body = ANSWERS["samples of a chat"]
    async with client() as one:
        engine = one._transport.app.state.api.service.engine  # type: ignore[union-attr]
        engine.per_event = 300
        await one.post(path, json=body | STREAM)
        await check(one, path, msgspec.json.encode(body | STREAM))


@pytest.mark.parametrize("path", ["/tokenize", "/generate"])
async def test_a_long_text(path: str, tmp_path: Path) -> None:
    """The tokens of a text of two megabytes, whose making and freeing takes the interpreter for long."""
    write_checkpoint(tmp_path)
    async with client() as one:
        service = one._transport.app.state.api.service  # type: ignore[union-attr]
        service.tokenizer = Tokenizer.load(tmp_path)
        service.tokenizer.long_texts = LongTexts(tmp_path)
        body = {"inputs": "a b c " * (BODY_BYTES // 6), "parameters": {"max_new_tokens": 1, "truncate": 9}}
        try:
            await check(one, path, msgspec.json.encode(body))
        finally:
            service.tokenizer.long_texts.close()
