"""`AsyncLLM`: `LLM` for programs with an event loop, which goes on while the model computes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any

from tgi.offline import LLM, Output, Prompt, prompt_count, with_parameters
from tgi.progress_bars import PromptBar
from tgi.serving.types import SamplingParams


class AsyncLLM(LLM):
    """A model in this process, awaited.

        async with AsyncLLM("path/or/hub-id") as llm:
            output = await llm.generate("Hello, ", max_new_tokens=20)

    `generate`, `chat` and `embed` take what `LLM`'s take and give awaitables; `stream` and `generate_iter` are async
    iterators. Any number of calls may be open, which share the engine's steps; cancelling one aborts its requests.
    The model is loaded when the block is entered.
    """

    def __init__(self, model: str | None = None, *, show_progress: bool | None = None, **flags: Any) -> None:
        """As `LLM`, but what is wrong shows when the block is entered."""
        self._arguments = {"model": model, "show_progress": show_progress, **flags}

    async def __aenter__(self) -> AsyncLLM:
        await asyncio.to_thread(super().__init__, **self._arguments)
        return self

    async def __aexit__(self, *unused: object) -> None:
        await asyncio.to_thread(self.close)

    def __enter__(self) -> AsyncLLM:
        raise TypeError("use `async with`")

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if not hasattr(self, "_loop_thread"):
            coroutine.close()
            raise RuntimeError("this AsyncLLM was not entered: use `async with`")
        return asyncio.wrap_future(self._begin(coroutine))

    async def generate_iter(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        prompts: Iterable[Prompt],
        sampling_params: SamplingParams | Iterable[SamplingParams] | None = None,
        *,
        show_progress: bool | None = None,
        **parameters: Any,
    ) -> AsyncIterator[Output]:
        """As `LLM.generate_iter`."""
        with PromptBar(prompt_count(prompts), show_progress) as advance:
            under_way: deque[asyncio.Future[Output]] = deque()
            try:
                for prompt, params in with_parameters(prompts, sampling_params):
                    if len(under_way) >= self._ahead:
                        yield await under_way.popleft()
                        advance()
                    under_way.append(self._run(self._generate(prompt, params, False, parameters)))
                while under_way:
                    yield await under_way.popleft()
                    advance()
            finally:
                for future in under_way:
                    future.cancel()

    async def stream(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, prompt: Prompt, sampling_params: SamplingParams | None = None, **parameters: Any
    ) -> AsyncIterator[Any]:
        """As `LLM.stream`."""
        loop = asyncio.get_running_loop()
        deltas: asyncio.Queue[Any] = asyncio.Queue()

        def put(delta: Any) -> None:
            loop.call_soon_threadsafe(deltas.put_nowait, delta)

        task = self._run(self._put_deltas(prompt, sampling_params, parameters, put))
        try:
            while (delta := await deltas.get()) is not None:
                if isinstance(delta, Exception):
                    raise delta
                yield delta
        finally:
            task.cancel()
