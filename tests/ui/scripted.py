"""The application in a thread, over an engine that says what a test tells it to, at the pace it tells."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from tests.api.fake import CHAT_TEMPLATE, INFO, FakeEngine, build_app, ids_of, serve
from tgi.api.playground.history import History
from tgi.messages import Begun, GenerateRequest, TokenEvent
from tgi.serving.chat_template import ChatTemplate


class PacedEngine(FakeEngine):
    """Answers the n-th request with the n-th reply, the last one for ever, `rate` tokens a second (0: no pause)."""

    def __init__(self) -> None:
        sizes = {"max_input_tokens": 8191, "max_total_tokens": 8192, "num_blocks": 1000}
        super().__init__(msgspec.structs.replace(INFO, **sizes))
        self.replies = ["Hello world"]
        self.rate = 0.0
        self.queue_s = 0.0
        self.prefill_s = 0.0
        self.history = History()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[list[TokenEvent], None]:
        self.reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        began = time.monotonic()
        tokens = 0
        if self.queue_s:
            await asyncio.sleep(self.queue_s)
        self.history.begun(Begun([request.request_id], time.monotonic()))
        if self.prefill_s:
            await asyncio.sleep(self.prefill_s)
        async for events in super().generate(request):
            self.history.got_first_token(request.request_id)
            tokens += 1
            yield events
            ahead = began + tokens / self.rate - time.monotonic() if self.rate else 0.0
            if ahead > 0.002:
                await asyncio.sleep(ahead)


class UiServer:
    """Use as a context."""

    def __init__(self, template: ChatTemplate = CHAT_TEMPLATE, **settings: Any) -> None:
        self.engine = PacedEngine()
        self.template = template
        self.settings = {"model_id": "org/small-model", "max_top_n_tokens": 5} | settings
        self._ready = threading.Event()

    def __enter__(self) -> UiServer:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = build_app(self.engine, self.template, **self.settings)
        self.engine.history = app.state.api.history
        async with serve(app) as self.url:
            self._ready.set()
            await self._stop.wait()

    @property
    def prompts(self) -> list[str]:
        """What the model was given, request by request."""
        alphabet = {ids_of(chr(code))[0]: chr(code) for code in range(32, 127)} | {ids_of("\n")[0]: "\n"}
        return ["".join(alphabet.get(id, "") for id in request.prompt_ids) for request in self.engine.requests]
