"""A scripted engine: no model, the real protocol.

`FakeEngine` satisfies `serving.types.Engine` in process; `FakePeer` speaks the wire protocol at the
far end of an `EngineClient`'s socket. Both play a `Script`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from tgi.errors import GenerationError
from tgi.messages import (
    Abort,
    Begun,
    EmbedRequest,
    EngineFailed,
    EngineInfo,
    FinishReason,
    FromEngine,
    GenerateRequest,
    MemoryPlan,
    MemoryRow,
    PromptLogprobs,
    StepOutput,
    StepStats,
    ToEngine,
    Token,
    TokenEvent,
    Vocabulary,
    encode,
    pack_prompt,
)
from tgi.serving.engine_client import Mailbox


def engine_info(**changes: Any) -> EngineInfo:
    """A READY message of a small engine."""
    memory = MemoryPlan([MemoryRow("weights", 1000)], 10_000, 64, 4096, 2.0, "memory")
    fields: dict[str, Any] = {
        "model_type": "llama", "dtype": "float32", "device": "cpu", "quantize": None, "vocab_size": 1000,
        "parameters": 1000, "weight_bytes": 4000, "block_size": 16, "num_blocks": 256, "max_input_tokens": 2047,
        "max_total_tokens": 2048, "max_batch_prefill_tokens": 512, "max_batch_total_tokens": 4096,
        "max_batch_size": 32, "prefix_caching": True, "kernels": {"attention": "reference"}, "memory": memory,
        "load_s": 0.1, "warmup_s": 0.1,
    }  # fmt: skip
    return EngineInfo(**(fields | changes))


@dataclass
class Script:
    """What one sample generates."""

    ids: Sequence[int]
    """Token ids, cut at max_new_tokens; when they run out the sample ends with `finish`."""
    finish: FinishReason = "length"
    """The reason when the ids run out."""
    error: str | None = None
    delay_s: float = 0.0
    """Before each token."""
    logprob: float = -0.5
    own: float | None = None
    """The model's own log-probability where it is another."""
    chunk: int = 1
    """Tokens of one event."""
    hang_after: int | None = None
    """Say nothing more after so many tokens, until aborted."""


Play = Callable[[GenerateRequest, int], Script]


@dataclass
class FakeEngine:
    """In-process engine. `play` gives the script of each sample; `requests` and `aborts` record what came."""

    play: Play
    info: EngineInfo = field(default_factory=engine_info)
    stats: StepStats = field(default_factory=StepStats)
    last_step_at: float = field(default_factory=time.monotonic)
    alive: bool = True
    silent: bool = False
    requests: list[GenerateRequest] = field(default_factory=list)
    aborts: list[tuple[int, int]] = field(default_factory=list)
    open_requests: int = 0
    _mailboxes: dict[int, Mailbox] = field(default_factory=dict)

    @classmethod
    def saying(cls, ids: Sequence[int], **script: Any) -> FakeEngine:
        """Every sample generates these ids."""
        return cls(lambda request, index: Script(ids, **script))

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[list[TokenEvent], None]:
        if not self.alive:
            raise GenerationError("the engine is gone")
        self.requests.append(request)
        mailbox = self._mailboxes[request.request_id] = Mailbox(len(request.seeds))
        self.open_requests += 1
        players = [
            asyncio.create_task(_play(request, index, self.play(request, index), mailbox.put))
            for index in range(len(request.seeds))
        ]
        try:
            while not mailbox.ended:
                yield await mailbox.take()
        finally:
            self.open_requests -= 1
            del self._mailboxes[request.request_id]
            if mailbox.open:
                self.aborts.append((request.request_id, -1))
            for player in players:
                player.cancel()

    async def embed(self, request: EmbedRequest) -> TokenEvent:
        raise NotImplementedError

    def next_end_s(self) -> float | None:
        return None

    def introduce(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def abort(self, request_id: int, index: int = -1) -> None:
        self.aborts.append((request_id, index))
        if (mailbox := self._mailboxes.get(request_id)) is not None:
            mailbox.abandon(index)

    def die(self, reason: str = "the engine is gone") -> None:
        """Fail all open requests, and later ones."""
        self.alive = False
        for mailbox in self._mailboxes.values():
            mailbox.fail(reason)


class FakePeer:
    """The engine's end of the socket, as a task of the test's loop."""

    def __init__(self, address: str, play: Play, info: EngineInfo | None = None) -> None:
        self.play = play
        self.info = info or engine_info()
        self.running: dict[tuple[int, int], asyncio.Task[None]] = {}
        self.received: list[ToEngine] = []
        self.embeds = True
        """False: such requests are never answered."""
        self.steps = 0
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.linger = 0
        self._socket.set_hwm(0)
        self._socket.connect(address)
        self._decode = msgspec.msgpack.Decoder(ToEngine).decode
        self._listener = asyncio.create_task(self._listen())

    async def ready(self) -> None:
        await self.send(self.info)

    async def send(self, message: FromEngine) -> None:
        await self._socket.send(encode(message))

    async def fail(self, error: str = "out of memory") -> None:
        """Say so and stop."""
        await self.send(EngineFailed(error, "step"))
        self.stop_all()

    def stop_all(self) -> None:
        for task in self.running.values():
            task.cancel()
        self.running.clear()

    async def close(self) -> None:
        self.stop_all()
        self._listener.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listener
        self._socket.close()
        self._context.term()

    async def _listen(self) -> None:
        while True:
            message = self._decode(await self._socket.recv())
            self.received.append(message)
            if isinstance(message, Abort):
                await self._abort(message)
                continue
            if isinstance(message, EmbedRequest):
                if self.embeds:
                    self._emit(TokenEvent(message.request_id, finish="pooled", embedding=bytes(4)))
                continue
            if not isinstance(message, GenerateRequest):
                continue
            await self.send(Begun([message.request_id], time.monotonic()))
            for index in range(len(message.seeds)):
                script = self.play(message, index)
                task = asyncio.create_task(_play(message, index, script, self._emit))
                self.running[message.request_id, index] = task
                task.add_done_callback(lambda _, key=(message.request_id, index): self.running.pop(key, None))

    async def _abort(self, message: Abort) -> None:
        for request_id, index in list(self.running):
            if request_id == message.request_id and message.index in (-1, index):
                self.running.pop((request_id, index)).cancel()
                self._emit(TokenEvent(request_id, index, finish="abort"))

    def _emit(self, event: TokenEvent) -> None:
        self.steps += 1
        self._socket.send(encode(StepOutput([event], StepStats(step=self.steps, running=len(self.running)))))


async def _play(request: GenerateRequest, index: int, script: Script, emit: Callable[[TokenEvent], None]) -> None:
    sampling = request.sampling
    ids = list(script.ids[: sampling.max_new_tokens])
    first: dict[str, Any] = {"scheduled": time.monotonic(), "cached_tokens": 0}
    if index == 0 and sampling.prompt_logprobs >= 0:
        first["prompt"] = pack_prompt(prompt_logprobs(request))
    top = [(number, -1.0 - number) for number in range(sampling.top_n_tokens)]
    for start in range(0, len(ids), script.chunk):
        await asyncio.sleep(script.delay_s)
        if script.hang_after is not None and start >= script.hang_after:
            await asyncio.Event().wait()
        tokens = [Token(id, script.logprob, list(top), script.own) for id in ids[start : start + script.chunk]]
        finish = None
        if start + script.chunk >= len(ids) and script.error is None:
            finish = "length" if len(ids) == sampling.max_new_tokens else script.finish
        emit(TokenEvent(request.request_id, index, tokens, finish, **first))
        first = {}
    if script.error is not None:
        emit(TokenEvent(request.request_id, index, finish="error", error=script.error))


def prompt_logprobs(request: GenerateRequest) -> PromptLogprobs:
    """Minus the position as log-probability, ids 0..n-1 as alternatives."""
    count, top_n = len(request.prompt_ids), request.sampling.prompt_logprobs
    top = [[(id, -float(id)) for id in range(top_n)] if position else [] for position in range(count)]
    return PromptLogprobs([float("nan"), *(-float(position) for position in range(1, count))], top)
