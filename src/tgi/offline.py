"""`LLM`: generation without a server, with the parameters of the HTTP routes.

Owns an engine on a thread of this process and an event loop on another; everything between them is
what the server uses (`serving.Service`, `engine.core`). Imported lazily as `tgi.LLM`.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any, TypeVar

from tgi.engine import core
from tgi.engine.main import make_scheduler
from tgi.errors import StartupError
from tgi.hub.prepare import prepare
from tgi.messages import EngineFailed, FromEngine, ToEngine
from tgi.progress_bars import LoadingBar, PromptBar
from tgi.serving import generation
from tgi.serving.chat.conversation import Conversation
from tgi.serving.chat.openai_form import choice_of, for_template, tools_of
from tgi.serving.chat.plan import plan_chat
from tgi.serving.dialect import TGI, TGI_RAW, Dialect
from tgi.serving.embeddings import Embedding
from tgi.serving.engine_client import EngineClient
from tgi.serving.grammars.build import grammar_of, response_grammar
from tgi.serving.service import Service
from tgi.serving.types import Completion, SamplingParams
from tgi.settings.config import ApiConfig, EngineConfig

Result = TypeVar("Result")
Message = dict[str, Any]
Prompt = str | Sequence[int]

CHAT_NAMES = {"max_completion_tokens": "max_new_tokens", "top_logprobs": "top_n_tokens"}
"""What the chat route calls parameters; `LLM.chat` takes both names."""
BATCHES_AHEAD = 2
"""Batches of the engine that `LLM.generate_iter` has under way: one runs, the next waits."""


@dataclass(slots=True)
class Output:
    """What became of one prompt."""

    prompt: str
    generated_text: str
    """With the prompt in front under `return_full_text`."""
    details: Completion
    """The (best) sample: tokens, log-probabilities, finish reason, seed, timings."""
    samples: list[Completion]
    """All samples: `n` in order, `best_of` best first."""
    messages: list[dict[str, Any]] = field(default_factory=list)
    """Of `chat` the assistant's message of each sample as OpenAI has it: content, tool_calls, reasoning_content."""

    @property
    def message(self) -> dict[str, Any]:
        """The first of the messages, to be put behind the conversation."""
        return self.messages[0]


class LLM:
    """A model in this process.

        with LLM("path/or/hub-id") as llm:
            print(llm.generate("Hello, ", max_new_tokens=20).generated_text)

    Keyword arguments are the launcher's flags with underscores (`dtype`, `max_total_tokens`,
    `kv_cache_memory`, ...). Without a model the bundled demo model is loaded.
    """

    def __init__(self, model: str | None = None, *, show_progress: bool | None = None, **flags: Any) -> None:
        """Download if needed, load, allocate. Raises `errors.StartupError` with a sentence.

        `show_progress`: how far loading is; by default on a terminal.
        """
        api, engine = prepare(model_id=model, **flags)
        self._loop = asyncio.new_event_loop()
        self._loop_thread = threading.Thread(target=self._loop.run_forever, name="llm-loop", daemon=True)
        self._loop_thread.start()
        self._engine: ThreadEngine | None = None
        self._service: Service | None = None
        self._dialect: Dialect = TGI_RAW if api.raw_logprobs else TGI
        try:
            self._service = self._wait(self._open(api, engine, show_progress))
        except BaseException:
            self.close()
            raise

    async def _open(self, api: ApiConfig, engine: EngineConfig, show_progress: bool | None) -> Service:
        with LoadingBar(show_progress) as bar:
            self._engine = ThreadEngine(engine, bar)
            await self._engine.start()
            await self._engine.wait_ready()
        service = await asyncio.to_thread(Service.load, api, self._engine)
        service.compare_with_model()
        return service

    @property
    def _open_service(self) -> Service:
        if self._service is None or not self._loop_thread.is_alive():
            raise RuntimeError("this LLM was closed")
        return self._service

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        show_progress: bool | None = None,
        **parameters: Any,
    ) -> Any:
        """Continue one prompt (-> `Output`) or many (-> list of `Output`, in their order).

        A prompt is text or a list of token ids. `sampling_params` is one for all or one for each;
        `parameters` (`max_new_tokens=20, temperature=0.7, ...`) are put on top. As on `/generate`,
        naming no parameter at all samples at temperature 1; naming any without `do_sample` or a
        warper is greedy. `grammar`: what the text must look like: a JSON schema, a pydantic model, an object as
        `response_format` or TGI's `grammar` takes it, or a `tgi.Grammar`.
        `max_tokens` is another name of `max_new_tokens`.
        `show_progress`: a bar; by default for more than eight prompts on a terminal.
        All results are held: for very many prompts there is `generate_iter`.
        Raises `errors.ValidationError` before anything runs, TypeError for a parameter that does not exist.
        """
        return self._run(self._generate(prompts, sampling_params, show_progress, parameters))

    async def _generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None,
        show_progress: bool | None,
        parameters: dict[str, Any],
    ) -> Any:
        single = isinstance(prompts, str) or bool(prompts and isinstance(prompts[0], int))
        many: list[Any] = [prompts] if single else list(prompts)
        settings = _settings(sampling_params, parameters, len(many))
        outputs = await self._all(many, settings, show_progress, add_special_tokens=True)
        return outputs[0] if single else outputs

    def generate_iter(
        self,
        prompts: Iterable[Prompt],
        sampling_params: SamplingParams | Iterable[SamplingParams] | None = None,
        *,
        show_progress: bool | None = None,
        **parameters: Any,
    ) -> Iterator[Output]:
        """Continue any number of prompts, even endlessly many: each `Output` in their order, as soon as it is there.

        Parameters as for `generate`. Prompts are drawn as they are needed, two batches ahead, and nothing is kept of
        what was given: memory does not grow with their number. Leaving the loop early aborts what is under way.
        Raises for a faulty prompt when its turn has come.
        """
        with PromptBar(prompt_count(prompts), show_progress) as advance:
            under_way: deque[Future[Output]] = deque()
            try:
                for prompt, params in with_parameters(prompts, sampling_params):
                    if len(under_way) >= self._ahead:
                        yield under_way.popleft().result()
                        advance()
                    under_way.append(self._begin(self._generate(prompt, params, False, parameters)))
                while under_way:
                    yield under_way.popleft().result()
                    advance()
            finally:
                for future in under_way:
                    future.cancel()

    @property
    def _ahead(self) -> int:
        """Prompts that `generate_iter` has under way."""
        return BATCHES_AHEAD * self._open_service.engine.info.max_batch_size

    def chat(
        self,
        conversations: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        parallel_tool_calls: bool = True,
        tool_prompt: str | None = None,
        response_format: Mapping[str, Any] | None = None,
        reasoning_effort: str | None = None,
        max_thinking_tokens: int | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        show_progress: bool | None = None,
        **parameters: Any,
    ) -> Any:
        """Answer one conversation (a list of messages -> `Output`) or many (-> list of `Output`).

        Parameters as for `generate`, or by the names of the chat route, as are `tools`, `response_format` and the like:
        `Output.message` has the calls. Raises `errors.ToolError`, `TemplateError`, `ValidationError`.
        """
        parameters = {CHAT_NAMES.get(name, name): value for name, value in parameters.items()}
        single = bool(conversations) and isinstance(conversations[0], Mapping)
        many: list[Any] = [conversations] if single else list(conversations)
        settings = _settings(sampling_params, parameters, len(many))
        form = None if response_format is None else response_grammar(dict(response_format))

        def conversation(messages: Sequence[Message], params: SamplingParams) -> Conversation:
            return Conversation(
                messages=[for_template(message) for message in messages],
                tools=tools_of(tools),
                choice=choice_of(tool_choice),
                parallel=parallel_tool_calls,
                tool_prompt=tool_prompt,
                template_arguments=chat_template_kwargs or {},
                reasoning_effort=reasoning_effort,
                max_thinking_tokens=max_thinking_tokens,
                grammar=form or params.grammar,
            )

        async def run() -> Any:
            service = self._open_service
            plans = [
                await plan_chat(service, conversation(messages, params))
                for messages, params in zip(many, settings, strict=True)
            ]
            prompts = [plan.prompt for plan in plans]
            planned = [plan.sampling(params) for plan, params in zip(plans, settings, strict=True)]
            dialects = [plan.dialect(self._dialect) for plan in plans]
            outputs = await self._all(prompts, planned, show_progress, add_special_tokens=False, dialects=dialects)
            for plan, output in zip(plans, outputs, strict=True):
                output.messages = [plan.message(sample.text) for sample in output.samples]
            return outputs[0] if single else outputs

        return self._run(run())

    def embed(
        self,
        inputs: Prompt | Sequence[Prompt],
        *,
        dimensions: int | None = None,
        add_special_tokens: bool = True,
        show_progress: bool | None = None,
    ) -> Any:
        """The vector of one text (-> `Embedding`) or of many (-> list of `Embedding`, in their order).

        A text is a string or a list of token ids; parameters are those of `/v1/embeddings`. `embedding` of an answer
        are the numbers, `data` the same as float32 in little-endian order. Raises `errors.ValidationError`.
        """
        single = isinstance(inputs, str) or bool(inputs and isinstance(inputs[0], int))
        many: list[Any] = [inputs] if single else list(inputs)
        service = self._open_service

        async def run() -> Embedding | list[Embedding]:
            requests = await service.embedder.prepare(
                many, service.limits, dimensions=dimensions, add_special_tokens=add_special_tokens, single=single
            )
            with PromptBar(len(many), show_progress) as advance:
                found = await service.embedder.embed(requests, advance)
            return found[0] if single else found

        return self._run(run())

    def stream(self, prompt: Prompt, sampling_params: SamplingParams | None = None, **parameters: Any) -> Iterator[Any]:
        """Give the `Delta`s of one prompt as they come; leaving the loop early aborts the request."""
        deltas: queue.SimpleQueue[Any] = queue.SimpleQueue()
        task = self._begin(self._put_deltas(prompt, sampling_params, parameters, deltas.put))
        try:
            while (delta := deltas.get()) is not None:
                if isinstance(delta, Exception):
                    raise delta
                yield delta
        finally:
            task.cancel()

    async def _put_deltas(
        self, prompt: Prompt, given: SamplingParams | None, parameters: dict[str, Any], put: Callable[[Any], None]
    ) -> None:
        """Put each `Delta`, then None; or the error."""
        try:
            (settings,) = _settings(given, parameters, 1)
            prepared = await self._open_service.prepare(prompt, settings, self._dialect, stream=True)
            async with aclosing(self._open_service.stream(prepared)) as batches:
                async for batch in batches:
                    for delta in batch:
                        put(delta)
            put(None)
        except Exception as error:
            put(error)

    async def _all(
        self,
        prompts: list[Any],
        settings: list[SamplingParams],
        show_progress: bool | None,
        *,
        add_special_tokens: bool,
        dialects: Sequence[Dialect] | None = None,
    ) -> list[Output]:
        prepared = [
            await self._open_service.prepare(prompt, params, dialect, add_special_tokens=add_special_tokens)
            for prompt, params, dialect in zip(
                prompts, settings, dialects or [self._dialect] * len(prompts), strict=True
            )
        ]
        with PromptBar(len(prompts), show_progress) as advance:

            async def one(number: int) -> Output:
                samples = await self._open_service.complete(prepared[number])
                advance()
                return _output(prepared[number].prompt, settings[number], samples)

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(number)) for number in range(len(prompts))]
        return [task.result() for task in tasks]

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What calls give back: their result, but an awaitable of it in `AsyncLLM`."""
        return self._wait(coroutine)

    def _wait(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Wait for a coroutine on the loop's thread; Ctrl-C cancels it, which aborts its requests."""
        future = self._begin(coroutine)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def _begin(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Start a coroutine on the loop's thread; cancelling what is given aborts its requests."""
        if not self._loop_thread.is_alive():
            coroutine.close()
            raise RuntimeError("this LLM was closed")
        return asyncio.run_coroutine_threadsafe(_unwrapped(coroutine), self._loop)

    def close(self) -> None:
        """Stop the engine and free the model; further calls do nothing."""
        if not self._loop_thread.is_alive():
            return
        if self._service is not None:
            self._service.close()
        if self._engine is not None:
            self._wait(self._engine.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._loop_thread.join()
        self._loop.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


async def _unwrapped(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Of several requests the error of the first that fails; the others were cancelled."""
    try:
        return await coroutine
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


class ThreadEngine(EngineClient):
    """The engine on a thread of this process; the queue takes the socket's place."""

    def __init__(self, config: EngineConfig, bar: LoadingBar) -> None:
        super().__init__("")
        self._bar = bar
        self._config = config
        self._inbox: queue.SimpleQueue[ToEngine | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="llm-engine", daemon=True)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        self._thread.start()

    async def close(self) -> None:
        self.engine_lost("the LLM was closed")
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def _send(self, message: ToEngine) -> None:
        self._inbox.put(message)

    def _serve(self) -> None:
        phase = "load"

        def enter(name: str) -> None:
            nonlocal phase
            phase = name
            self._bar.enter_phase(name)

        def send(message: FromEngine) -> None:
            self._loop.call_soon_threadsafe(self._receive, message)

        try:
            from tgi.engine.worker import Worker

            worker = Worker(self._config, enter, self._bar.read)
            send(worker.info)
            core.run(core.EngineCore(make_scheduler(worker.info), worker, worker.grammars), self._next, send)
        except _Closed:
            return
        except StartupError as error:
            send(EngineFailed(str(error), phase))  # type: ignore[arg-type]
        except Exception as error:
            send(EngineFailed(f"{type(error).__name__}: {error}", phase))  # type: ignore[arg-type]

    def _next(self, timeout_s: float) -> ToEngine | None:
        try:
            message = self._inbox.get(timeout=timeout_s) if timeout_s else self._inbox.get_nowait()
        except queue.Empty:
            return None
        if message is None:
            raise _Closed
        return message


class _Closed(BaseException):
    """Leaves the engine's loop. Not an Exception, so that nothing on the way takes it for a failure."""


def prompt_count(prompts: Iterable[Prompt]) -> int | None:
    """How many there are, where that is known."""
    if isinstance(prompts, str):
        raise TypeError("`generate_iter` takes prompts, not one of them: use `generate`")
    return len(prompts) if isinstance(prompts, Sized) else None


def with_parameters(
    prompts: Iterable[Prompt], given: SamplingParams | Iterable[SamplingParams] | None
) -> Iterator[tuple[Prompt, SamplingParams | None]]:
    """Each prompt with its parameters. Raises ValueError where there are not as many of them."""
    if given is None or isinstance(given, SamplingParams):
        return zip(prompts, repeat(given), strict=False)
    return zip(prompts, given, strict=True)


def _settings(
    given: SamplingParams | Sequence[SamplingParams] | None, parameters: dict[str, Any], count: int
) -> list[SamplingParams]:
    """One `SamplingParams` for each prompt. Raises TypeError with the right name for one that does not exist."""
    if given is None:
        each = [SamplingParams(**(parameters or {"do_sample": True}))] * count
    else:
        each = [given] * count if isinstance(given, SamplingParams) else list(given)
        each = [replace(params, **parameters) for params in each]
    if len(each) != count:
        raise ValueError(f"{len(each)} sampling parameters for {count} prompts")
    each = [replace(params, grammar=grammar_of(params.grammar)) for params in each]
    # A string is a sequence too, of its characters, and would stop at any of them.
    return [replace(params, stop=[params.stop]) if isinstance(params.stop, str) else params for params in each]


def _output(prompt: str, params: SamplingParams, samples: list[Completion]) -> Output:
    if params.best_of and params.best_of > 1:
        samples = generation.rank(samples)
    text = samples[0].text
    return Output(prompt, prompt + text if params.return_full_text else text, samples[0], samples)
