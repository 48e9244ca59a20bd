"""A scripted engine and a server around it: everything of the API process is real but the model.

The tokenizer knows one token per byte, so that a test can read token ids; `<s>` is put first.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import uvicorn
from starlette.applications import Starlette
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, processors

from tgi.api.app import create_app
from tgi.errors import GenerationError
from tgi.launcher.http_protocol import BoundedProtocol
from tgi.messages import (
    EmbedRequest,
    EngineInfo,
    GenerateRequest,
    MemoryPlan,
    MemoryRow,
    PromptLogprobs,
    StepStats,
    Token,
    TokenEvent,
    Vocabulary,
    pack_prompt,
)
from tgi.metrics import Metrics
from tgi.serving.chat_template import ChatTemplate
from tgi.serving.generation_defaults import NONE, GenerationDefaults
from tgi.serving.service import Service
from tgi.serving.tokenizer import Tokenizer
from tgi.settings.config import ApiConfig

BOS, EOS = 256, 257
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'bad' %}{{ raise_exception('no such role') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
CHAT_TEMPLATE = ChatTemplate({"default": TEMPLATE}, SPECIAL)
"""One for all applications: it starts a process when it is first used."""


def build_tokenizer() -> Tokenizer:
    """One token per byte, id = position in the byte-level alphabet; `<s>` is 256, `</s>` 257."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = FastTokenizer(models.BPE(vocab={letter: id for id, letter in enumerate(alphabet)}, merges=[]))
    fast.add_special_tokens(["<s>", "</s>"])
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    fast.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return Tokenizer(fast, dict(SPECIAL))


TOKENIZER = build_tokenizer()


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


INFO = EngineInfo(
    model_type="llama",
    dtype="float32",
    device="cpu",
    quantize=None,
    vocab_size=258,
    parameters=1000,
    weight_bytes=4000,
    block_size=16,
    num_blocks=100,
    max_input_tokens=255,
    max_total_tokens=256,
    max_batch_prefill_tokens=256,
    max_batch_total_tokens=1600,
    max_batch_size=8,
    prefix_caching=True,
    kernels={"attention": "reference"},
    memory=MemoryPlan(
        rows=[MemoryRow("weights", 4000)],
        available_bytes=10000,
        kv_bytes_per_token=8,
        cache_tokens=1600,
        full_length_requests=6.25,
        binding_limit="memory",
    ),
    load_s=0.1,
    warmup_s=0.1,
    hidden_size=8,
)


class FakeEngine:
    """Continues every prompt with `reply`, a token a turn of the event loop, then end-of-sequence.

    Sample i of a request speaks from the i-th character on and is less likely the higher i is.
    """

    def __init__(self, info: EngineInfo = INFO, reply: str = "Hello world") -> None:
        self.info = info
        self.reply = reply
        self.stats = StepStats()
        self.last_step_at = time.monotonic()
        self.alive = True
        self.silent = False
        self.requests: list[GenerateRequest] = []
        self.embeds: list[EmbedRequest] = []
        self.aborted: list[int] = []
        """Requests whose reader left before their last event."""
        self.changed = asyncio.Event()
        """Set when a request comes or is aborted."""
        self.hold_after: int | None = None
        """Tokens after which every request waits for `release`."""
        self.release = asyncio.Event()
        self.failure = GenerationError("the device caught fire")
        self.fail_after: int | None = None
        """Tokens after which every request fails."""
        self.crash_after: int | None = None
        """Tokens after which a mistake of ours is raised."""
        self.cut_after: int | None = None
        """Tokens after which the events end without a last one."""
        self.worst_first = False
        """Later samples are the likelier ones."""
        self.cached_tokens = 0
        """Of every prompt, for its first sample; the others find all that the first one computed."""
        self.per_event = 1
        """Tokens an event carries."""
        self.open: set[int] = set()
        self.metrics: Metrics | None = None

    @property
    def open_requests(self) -> int:
        return len(self.open)

    @property
    def queued_tokens(self) -> int:
        return 0

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[list[TokenEvent], None]:
        self.requests.append(request)
        self.open.add(request.request_id)
        self._news()
        ended = False
        try:
            tokens = [self._sample(request, index) for index in range(len(request.seeds))]
            for position in range(0, max(map(len, tokens)), self.per_event):
                if position == self.cut_after:
                    break
                await self._turn(position)
                self._step(request, position)
                if events := [
                    e for index, one in enumerate(tokens) for e in self._event(request, index, one, position)
                ]:
                    yield events
            ended = True
        except GenerationError:
            ended = True
            raise
        finally:
            self.open.discard(request.request_id)
            if not ended:
                self.aborted.append(request.request_id)
            self._news()

    async def embed(self, request: EmbedRequest) -> TokenEvent:
        """The first numbers of a vector are the prompt's last ids, halved."""
        self.embeds.append(request)
        self.open.add(request.request_id)
        self._news()
        try:
            await self._turn(0)
            numbers = [id / 2 for id in reversed(request.prompt_ids)] + [0.0] * self.info.hidden_size
            data = struct.pack(f"<{self.info.hidden_size}f", *numbers[: self.info.hidden_size])
            width = request.dimensions or self.info.hidden_size
            return TokenEvent(
                request.request_id,
                finish="pooled",
                embedding=data[: 4 * width],
                scheduled=time.monotonic(),
                cached_tokens=self.cached_tokens,
            )
        except asyncio.CancelledError:
            self.aborted.append(request.request_id)
            raise
        finally:
            self.open.discard(request.request_id)
            self._news()

    def next_end_s(self) -> float | None:
        return None

    def introduce(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def abort(self, request_id: int, index: int = -1) -> None:
        pass

    def _news(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def _turn(self, position: int) -> None:
        await asyncio.sleep(0)
        if self.fail_after is not None and position >= self.fail_after:
            raise self.failure
        if self.crash_after is not None and position >= self.crash_after:
            raise RuntimeError("secret at /usr/lib/secret.py")
        if self.hold_after is not None and position >= self.hold_after:
            await self.release.wait()

    def _step(self, request: GenerateRequest, position: int) -> None:
        self.last_step_at = time.monotonic()
        prefill = len(request.prompt_ids) if position == 0 else 0
        self.stats = StepStats(
            step=self.stats.step + 1,
            running=len(self.open),
            free_blocks=90,
            running_tokens=100,
            scheduled_prefill_tokens=prefill,
            scheduled_decode_tokens=len(self.open) - (position == 0),
            admitted=1 if position == 0 else 0,
            prefix_query_tokens=prefill,
            forward_s=0.001,
            total_s=0.002,
        )
        if self.metrics is not None:
            self.metrics.observe_step(self.stats)

    def _sample(self, request: GenerateRequest, index: int) -> list[tuple[Token, Any]]:
        """The tokens with the finish reason of the last."""
        sampling = request.sampling
        ids = [*ids_of(self.reply[index:]), EOS]
        if EOS not in sampling.eos_token_ids or len(ids) <= sampling.min_new_tokens:
            ids = ids_of(self.reply * 200)
        ids = ids[: sampling.max_new_tokens]
        logprob = -0.5 - (len(request.seeds) - 1 - index if self.worst_first else index)
        tokens = [Token(id, logprob, self._top(id, logprob, sampling.top_n_tokens)) for id in ids]
        # TGI's order: the last allowed token reports `length` even if it ends the sequence.
        ended = ids[-1] in sampling.eos_token_ids and len(ids) < sampling.max_new_tokens
        reasons = [None] * (len(ids) - 1) + ["eos_token" if ended else "length"]
        return list(zip(tokens, reasons, strict=True))

    @staticmethod
    def _top(id: int, logprob: float, count: int) -> list[tuple[int, float]]:
        others = [other for other in range(60, 80) if other != id]
        return [(id, logprob), *((other, logprob - 1 - rank) for rank, other in enumerate(others))][:count]

    def _event(
        self, request: GenerateRequest, index: int, tokens: list[tuple[Token, Any]], position: int
    ) -> list[TokenEvent]:
        now = tokens[position : position + self.per_event]
        if not now:
            return []
        event = TokenEvent(request.request_id, index, [token for token, _ in now], now[-1][1])
        if position == 0:
            event.scheduled = time.monotonic()
            event.cached_tokens = len(request.prompt_ids) - 1 if index else self.cached_tokens
            if index == 0 and request.sampling.prompt_logprobs >= 0:
                event.prompt = pack_prompt(self._prompt(request))
        return [event]

    def _prompt(self, request: GenerateRequest) -> PromptLogprobs:
        ids, count = request.prompt_ids, request.sampling.prompt_logprobs
        logprobs = [float("nan"), *(-1.0 - position / 8 for position in range(1, len(ids)))]
        top = [[], *(self._top(id, lp, count) for id, lp in zip(ids[1:], logprobs[1:], strict=True))]
        return PromptLogprobs(logprobs, top)


CONFIG = ApiConfig(model_id="org/model", model_path="/nowhere", max_concurrent_requests=16)


def build_app(
    engine: FakeEngine,
    template: ChatTemplate = CHAT_TEMPLATE,
    defaults: GenerationDefaults = NONE,
    **settings: Any,
) -> Starlette:
    """The real application over a scripted engine."""
    if "api_key" in settings:
        settings["api_keys"] = (settings.pop("api_key"),)
    config = replace(CONFIG, **settings)
    service = Service(config, engine, TOKENIZER, template, {EOS: ("tokenizer",)}, defaults)  # type: ignore[arg-type]
    engine.metrics = Metrics.for_engine(engine.info)
    return create_app(service, config, metrics=engine.metrics)


class Server(uvicorn.Server):
    """Tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def serve(app: Starlette) -> AsyncIterator[str]:
    """The application behind a real server on a free port of loopback; gives its address."""
    config = uvicorn.Config(
        app,
        "127.0.0.1",
        0,
        http=BoundedProtocol,
        lifespan="off",
        log_level="error",
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    task = asyncio.create_task(server.serve())
    await server.ready.wait()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task
