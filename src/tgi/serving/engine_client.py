"""The API process's end of the engine socket.

Owns the ZeroMQ pair, one mailbox for each open request and the knowledge whether the engine lives.
Does not own the engine process (`launcher.supervisor` starts it and calls `engine_lost` when it is
gone) nor what events mean (`generation`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator

import msgspec
import zmq

from tgi.errors import EngineLostError, GenerationError, StartupError
from tgi.heartbeat import BEAT_S, OVERDUE_S, Pulse
from tgi.messages import (
    Abort,
    Begun,
    EmbedRequest,
    EngineFailed,
    EngineInfo,
    EngineLoading,
    FromEngine,
    GenerateRequest,
    StepOutput,
    StepStats,
    ToEngine,
    TokenEvent,
    Vocabulary,
    encode,
)

logger = logging.getLogger(__name__)

NEXT_END_KNOWN_S = 0.25
"""For so long `next_end_s` believes what it found."""


class EngineClient:
    """Implements `types.Engine` over a ZeroMQ PAIR socket. Belongs to one event loop.

    The client binds `address` (ipc://...) and the engine connects, so the engine may start later.
    """

    def __init__(self, address: str, *, on_step: Callable[[StepStats], None] | None = None) -> None:
        """`on_step` is called with the statistics of every step, for metrics."""
        self._address = address
        self.on_step = on_step
        self.on_begun: Callable[[Begun], None] | None = None
        """Called when requests have left the engine's queue."""
        self.on_first_token: Callable[[int], None] | None = None
        """Called with the id of a request whose first token has come."""
        self.info: EngineInfo
        self.loading: EngineLoading | None = None
        """What it did when it was last heard of, until it is ready."""
        self.stats = StepStats()
        self.last_step_at = time.monotonic()
        self._mailboxes: dict[int, Mailbox] = {}
        self._failure: str | None = None
        self._silence: str | None = None
        """Why nothing is sent to the engine now, though it may come back."""
        self._closed = False
        self._next_end: float | None = None
        self._next_end_known = -math.inf
        self._decode = msgspec.msgpack.Decoder(FromEngine).decode

    async def start(self) -> None:
        """Bind the socket and begin to listen."""
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[EngineInfo] = self._loop.create_future()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.set_hwm(0)  # what is in flight is bounded by the permits of the API
        self._socket.linger = 0
        self._socket.bind(self._address)
        # zmq.asyncio would make several futures and timers for every step, which is a good part of its cost.
        self._loop.add_reader(self._socket.fileno(), self._dispatch)
        self._pulse = Pulse(self._address)
        self._loop.call_later(BEAT_S, self._feel_pulse)

    async def wait_ready(self, timeout: float | None = None) -> EngineInfo:  # noqa: ASYNC109 (of the message, not of a task)
        """Wait for the engine's READY message. Raises StartupError when it fails, is lost, or takes too long."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._ready), timeout)
        except TimeoutError:
            raise StartupError(f"the engine was not ready after {timeout:.0f} s") from None

    async def close(self) -> None:
        """Stop listening; open requests fail. Does not stop the engine."""
        self.engine_lost("the server is closing")
        self._loop.remove_reader(self._socket.fileno())
        self._closed = True
        self._pulse.close()
        self._socket.close()
        self._context.term()

    @property
    def alive(self) -> bool:
        """Ready, not lost, and not silent."""
        return self._failure is None and self._silence is None and hasattr(self, "info")

    @property
    def silent(self) -> bool:
        """Without a sign of life for so long that requests are refused; they are taken again when one comes."""
        return self._failure is None and self._silence is not None

    @property
    def open_requests(self) -> int:
        return len(self._mailboxes)

    @property
    def queued_tokens(self) -> int:
        """See `types.Engine`."""
        return sum(mailbox.prompt_tokens for mailbox in self._mailboxes.values() if not mailbox.begun)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[list[TokenEvent], None]:
        """See `types.Engine`; sends Abort when closed before the last event of every sample."""
        mailbox = Mailbox(len(request.seeds), request.sampling.max_new_tokens, len(request.prompt_ids))
        with self._opened(request, mailbox):
            while not mailbox.ended:
                yield await mailbox.take()

    async def embed(self, request: EmbedRequest) -> TokenEvent:
        """See `types.Engine`."""
        with self._opened(request, Mailbox(1)) as mailbox:
            (event,) = await mailbox.take()
            return event

    @contextlib.contextmanager
    def _opened(self, request: GenerateRequest | EmbedRequest, mailbox: Mailbox) -> Iterator[Mailbox]:
        """Send the request, whose events go to the mailbox; abort it when left before its last event."""
        if (problem := self._failure or self._silence) is not None:
            raise EngineLostError(problem)
        assert request.request_id not in self._mailboxes, "request ids are unique"
        self._mailboxes[request.request_id] = mailbox
        try:
            self._send(request)
            yield mailbox
        finally:
            del self._mailboxes[request.request_id]
            if mailbox.open and self._failure is None:
                self._send(Abort(request.request_id))

    def introduce(self, vocabulary: Vocabulary) -> None:
        """See `types.Engine`."""
        if self._failure is None:
            self._send(vocabulary)

    def next_end_s(self) -> float | None:
        """See `types.Engine`. Looks at all requests, hence not again within a moment."""
        now = time.monotonic()
        if now - self._next_end_known >= NEXT_END_KNOWN_S:
            ends = [end for mailbox in self._mailboxes.values() if (end := mailbox.ends_at()) is not None]
            self._next_end, self._next_end_known = min(ends, default=None), now
        return None if self._next_end is None else max(self._next_end - now, 0.0)

    def abort(self, request_id: int, index: int = -1) -> None:
        """See `types.Engine`. Unknown ids are ignored."""
        mailbox = self._mailboxes.get(request_id)
        if mailbox is None or self._failure is not None:
            return
        mailbox.abandon(index)
        self._send(Abort(request_id, index))

    def engine_lost(self, reason: str, for_operator: str | None = None) -> None:
        """The engine is gone: fail every open request at once, and all later ones.

        `for_operator`: what whoever starts the server is told in place of `reason`, which clients get.
        """
        if self._failure is not None:
            return
        self._failure = reason
        if not self._ready.done():
            self._ready.set_exception(StartupError(for_operator or reason))
            self._ready.exception()  # nobody may be waiting
        for mailbox in self._mailboxes.values():
            mailbox.fail(reason)

    def _feel_pulse(self) -> None:
        """Fail open requests when the engine gives no sign of life, and take requests again when it does.

        What it has computed by then for failed requests is thrown away: each of them has sent its Abort.
        """
        if self._closed or self._failure is not None:
            return
        self._loop.call_later(BEAT_S, self._feel_pulse)
        silent_s = self._pulse.feel()
        if silent_s >= OVERDUE_S and self._silence is None and self.alive:
            self._silence = f"the engine gives no sign of life since {silent_s:.0f} s"
            logger.error("The engine gives no sign of life: open requests fail, new ones get 503 until it does")
            for mailbox in self._mailboxes.values():
                mailbox.fail(self._silence)
        elif silent_s < OVERDUE_S and self._silence is not None:
            self._silence = None
            self.last_step_at = time.monotonic()
            logger.warning("The engine is back")

    def _send(self, message: ToEngine) -> None:
        try:
            self._socket.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:  # nobody is connected; what waits learns of it from `engine_lost`
            logger.debug("no engine to send to")
        self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Take every message that is there.

        The descriptor of a ZeroMQ socket only tells of changes, and sending may use up the news of a
        message that came: hence all at once, and again after each `send`.
        """
        while not self._closed:
            try:
                data = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                self._receive(self._decode(data))
            except msgspec.DecodeError as error:
                logger.error("message of the engine not understood: %s", error)
                self.engine_lost("the engine sent a message that cannot be read")

    def _receive(self, message: FromEngine) -> None:
        if isinstance(message, StepOutput):
            self._receive_step(message)
        elif isinstance(message, Begun):
            if self.on_begun is not None:
                self.on_begun(message)
        elif isinstance(message, EngineFailed):
            self.engine_lost(message.error)
        elif isinstance(message, EngineLoading):
            self.loading = message
        else:
            self.info = message
            self.last_step_at = time.monotonic()
            if not self._ready.done():
                self._ready.set_result(message)

    def _receive_step(self, output: StepOutput) -> None:
        for event in output.events:
            if (mailbox := self._mailboxes.get(event.request_id)) is not None:
                had_begun = mailbox.begun
                mailbox.put(event)
                if self.on_first_token is not None and mailbox.begun and not had_begun:
                    self.on_first_token(event.request_id)
        stats = output.stats
        # A heartbeat counts as progress only when nothing waits for a step.
        if stats.step != self.stats.step or not (stats.running or stats.waiting):
            self.last_step_at = time.monotonic()
        self.stats = stats
        if self.on_step is not None:
            self.on_step(stats)


class Mailbox:
    """Events of one request until its reader takes them, merged into one for each sample.

    Its size is bounded by the tokens the request may generate.
    """

    def __init__(self, samples: int, max_new_tokens: int = 1, prompt_tokens: int = 0) -> None:
        self.prompt_tokens = prompt_tokens
        self._most = max_new_tokens
        self._came: dict[int, int] = {}  # sample -> tokens
        self._first = 0.0  # when the first of all came
        self.open = set(range(samples))
        """Samples whose last event has not arrived."""
        self._pending: dict[int, TokenEvent] = {}
        self._news = asyncio.Event()
        self._failure: str | None = None

    @property
    def begun(self) -> bool:
        """A token has come, so the prompt is computed."""
        return self._first > 0

    @property
    def ended(self) -> bool:
        """Nothing is to come and nothing is left."""
        return not self.open and not self._pending and self._failure is None

    def put(self, event: TokenEvent) -> None:
        if event.index not in self.open:
            return
        if event.finish is not None:
            self.open.discard(event.index)
        if event.tokens:
            self._first = self._first or time.monotonic()
            self._came[event.index] = self._came.get(event.index, 0) + len(event.tokens)
        earlier = self._pending.get(event.index)
        self._pending[event.index] = event if earlier is None else _merge(earlier, event)
        self._news.set()

    async def take(self) -> list[TokenEvent]:
        """All that has come since the last call; waits for something. Raises GenerationError on failure."""
        await self._news.wait()
        self._news.clear()
        if not self._pending and self._failure is not None:
            raise (GenerationError if self.begun else EngineLostError)(self._failure)
        if self._failure is not None:
            self._news.set()  # what came before the failure first, then the failure
        events, self._pending = list(self._pending.values()), {}
        return events

    def ends_at(self) -> float | None:
        """time.monotonic() when the last sample has all its tokens, if they come as they came; None: not known yet."""
        came = min((self._came.get(index, 0) for index in self.open), default=0)
        if came < 2:
            return None
        now = time.monotonic()
        return now + (self._most - came) * (now - self._first) / (came - 1)

    def abandon(self, index: int) -> None:
        """Expect no more of a sample (or of all, -1)."""
        for sample in list(self.open) if index == -1 else [index]:
            self.open.discard(sample)
            self._pending.pop(sample, None)
        self._news.set()

    def fail(self, reason: str) -> None:
        if self.open:
            self._failure = reason
            self._news.set()


def _merge(earlier: TokenEvent, later: TokenEvent) -> TokenEvent:
    earlier.tokens.extend(later.tokens)
    earlier.finish = later.finish
    earlier.error = later.error
    earlier.prompt = earlier.prompt or later.prompt
    earlier.cached_tokens = earlier.cached_tokens or later.cached_tokens
    earlier.scheduled = earlier.scheduled or later.scheduled
    return earlier
