"""One call of a generation route, from its permit to its last byte.

Owns what every such route does alike: permits, reading the body, validation through the service,
metrics, the `Success` log line, the span, and the `x-` headers. Does not own the shape of answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from tgi.api.server.access import GROUP
from tgi.api.server.admission import Permit, check_samples
from tgi.api.server.body import Model, decode, parse, read_body
from tgi.api.server.request_log import beginning_of, facts_of, parameters
from tgi.api.state import Api, api_of
from tgi.api.wire.answer import Answer, Content
from tgi.api.wire.errors import InternalError
from tgi.api.wire.forms import FORM, OPENAI, TGI, Form, request_id
from tgi.api.wire.json_pieces import take_apart
from tgi.api.wire.long_answer import FEW_ITEMS, LongLists, write
from tgi.api.wire.near_fields import split_hint
from tgi.api.wire.streaming import ClientGone, EventStream, until_gone
from tgi.errors import (
    MalformedRequestError,
    OverloadedError,
    ShuttingDownError,
    TgiError,
    UnhealthyError,
)
from tgi.messages import EmbedRequest
from tgi.serving.dialect import Dialect
from tgi.serving.types import Completion, Prepared, SamplingParams, Timings
from tgi.tracing import identity

logger = logging.getLogger("tgi.api")

STEP_BUDGET = 1024
"""Tokens of TGI's generation steps; only the metric of that name still knows them."""
IGNORED_NAMES = 32
"""Most names in `x-tgi-ignored`."""
NAME_LENGTH = 96
"""Of one name, the longest path of ours with room for a name that we do not know."""
MOST_HINTS = 256
"""Warnings of one server about fields that were likely meant to be others."""
UNLOGGED = (OverloadedError, ShuttingDownError, MalformedRequestError, InternalError)
"""A flood of refusals must not become one of log lines; our own mistakes are logged with their traceback."""

LOGGED_INPUTS = 8
"""Of the texts of one request, at `debug`."""
LARGE_BODY = 65_536
"""Bytes from which on a body is read and checked in a thread."""

Result = TypeVar("Result")


class Call:
    """Use as `async with`: permits go back at the end, unless an answer took the call over."""

    def __init__(
        self, request: Request, *, openai: bool = False, counted: bool = True, form: Form | None = None
    ) -> None:
        """`form`: how errors are worded; OpenAI's with `openai`, else TGI's.

        `counted`: whether the call is one of those that TGI counts; once, and once more by how it ended."""
        self.request = request
        self.api: Api = api_of(request)
        self.form = form or (OPENAI if openai else TGI)
        self.started = time.monotonic()
        self.ignored: list[str] = []
        """Names of fields that have no effect."""
        self.characters = 0
        """Characters of the prompts, template applied."""
        self.waited = 0.0
        """Seconds in line for permits."""
        self._group: int = request.scope.get(GROUP, 0)
        self._identity = identity(request.headers)
        self._size = 0
        self._permit: Permit | None = None
        self._logged: SamplingParams | None = None
        """The parameters that the log has already."""
        self._large: list[Any] = []
        """What was made of a large body, and of a large answer."""
        self._answering = False
        """An answer that is still written has taken the call over, and closes it."""
        self._counted = counted
        self._failure: str | None = None
        """What the call counts as in `tgi_request_failure`; None: as a success."""
        self._problem: str | None = None
        self._name: str = request.scope["endpoint"].__name__
        self._span = self.api.tracer.start(self._name, request.headers)
        request.scope[FORM] = self.form
        self.record = self.api.history.begin(self._name, self._group, listed=counted, arrived=self.started)
        self._count("tgi_request_count")

    async def __aenter__(self) -> Call:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, TgiError):
            self.failed(error)
        if error is not None:
            left_early = not isinstance(error, Exception) or isinstance(error, ClientGone)
            if not left_early:
                self._fail("internal", "internal error")  # one that is not a TgiError, else it has failed already
            self._close(left_early)
        elif not self._answering:
            self._close(left_early=False)

    def _close(self, left_early: bool) -> None:
        if left_early:
            if self._failure is None and self._counted:
                waited = {"total_time": f"{time.monotonic() - self.started:.6f}s"}
                logger.info("The client left before the end of its answer", extra={"span": (self._name, waited)})
            self._fail("dropped", "the client left")
        if self._failure is None:
            self._count("tgi_request_success")
        else:
            self._count("tgi_request_failure", err=self._failure)
        if self._permit is not None and self._permit.since is not None:
            self.api.permits.give_back(self._permit)
        self._permit = None
        kind = "ok" if self._failure is None else "left" if self._failure == "dropped" else self._failure
        self.api.history.end(self.record, kind, self._problem or "")
        self._span.end(self._problem)
        if self._large:
            asyncio.get_running_loop().run_in_executor(None, take_apart, self._large)

    def _count(self, name: str, **labels: str) -> None:
        if self._counted:
            self.api.metrics.count(name, 1, **labels)

    def failed(self, error: TgiError) -> None:
        """Note, trace and log an error that is answered, by status or by event; log lines as TGI writes them."""
        if self._failure is None and not isinstance(error, UNLOGGED):
            logger.error(error.text, extra={"span": (self._name, {})})
        self._span.set({"error_type": error.error_type})
        self._fail(error.metric or "internal", error.text)

    def _fail(self, metric: str, problem: str) -> None:
        """The first reason is the reason; what follows from it is not counted again."""
        if self._failure is None:
            self._failure, self._problem = metric, problem

    def speak_openai(self) -> None:
        """The body turned out to be OpenAI's: so are errors from here on."""
        self.form = self.request.scope[FORM] = OPENAI

    async def read(self, model: type[Model]) -> Model:
        """The body, and the first permit: looked for before a byte is read, taken when the body is there."""
        return await self.parse(model, await self.read_json())

    async def read_json(self) -> Any:
        limit = self.api.config.payload_limit
        declared = self.request.headers.get("content-length", "")
        self.api.permits.check(self._group, min(int(declared), limit) if declared.isdecimal() else 0)
        if self._counted:
            self._check_engine()  # before anything is sent, so that streams can be refused by status, too
        body = await read_body(self.request, limit)
        self._size = len(body)
        await self.take(1)
        return await self._read(decode, body)

    async def parse(self, model: type[Model], data: Any) -> Model:
        model.check_counts(data, self.api)
        parsed = await self._read(parse, model, data, self.ignored)
        self._warn_of_near_names()
        return parsed

    def _warn_of_near_names(self) -> None:
        """Fields that were likely meant to be others are told of once, by the names that were meant."""
        for name in self.ignored[:IGNORED_NAMES]:
            path, hint = split_hint(name)
            if hint and hint not in self.api.hints_given and len(self.api.hints_given) < MOST_HINTS:
                self.api.hints_given.add(hint)
                logger.warning("Requests to %s have a field that is ignored: %s%s", self._name, path, hint)

    def _check_engine(self) -> None:
        if self.api.service.engine.silent:
            raise UnhealthyError("The engine gives no sign of life: try again later")

    async def _read(self, function: Callable[..., Result], *arguments: Any) -> Result:
        work = self.unhurried(function, *arguments)
        return await (work if self._size < LARGE_BODY else self.wait(work))

    async def unhurried(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """The function's result; of a large body from a thread, so that it holds up nobody.

        That goes for the end of what a large body became, too: results are kept until the call ends, and then
        taken apart in pieces.
        """
        if self._size < LARGE_BODY:
            return function(*arguments)
        result = await asyncio.to_thread(function, *arguments)
        self._large.append(result)
        return result

    async def take(self, count: int) -> None:
        """Permits for the call, in place of those it has; waits where that is allowed, else raises OverloadedError."""
        before, self._permit = self._permit, None
        self._permit = self.api.permits.take(count, self._group, size=self._size, instead_of=before)
        if self._permit.since is None:
            self.record.waits = True
            began = time.monotonic()
            await self.wait(self.api.permits.wait(self._permit))
            self.waited += time.monotonic() - began
        self.record.permitted = time.monotonic()

    async def take_samples(self, samples: int, prompts: int = 1, field: str = "prompt") -> None:
        """A permit for each sample of each prompt; more samples than permits is validation's to refuse.

        Raises ValidationError when that many permits will never be free; `field` holds the prompts.
        """
        samples = max(samples, 1)
        if check_samples(self.api.permits, samples, prompts, field) and samples * prompts > 1:
            await self.take(samples * prompts)

    async def prepare(
        self,
        inputs: str | Sequence[int],
        params: SamplingParams,
        dialect: Dialect,
        *,
        add_special_tokens: bool = True,
        stream: bool = False,
    ) -> Prepared:
        """Tokenise and check; raises `errors.ValidationError`, or UnhealthyError while the engine is silent."""
        self._check_engine()
        self._debug("Input", inputs)
        prepared = await self.api.service.prepare(
            inputs,
            params,
            dialect,
            add_special_tokens=add_special_tokens,
            stream=stream,
            started=self.started,
            waited=self.waited,
            group=self._group,
            label=" ".join(self._identity.values()),
        )
        metrics, record = self.api.metrics, self.record
        record.validated, record.streamed = prepared.validated, stream
        record.prompt_tokens += prepared.input_length
        self.api.history.follow(record, prepared.request.request_id)
        metrics.observe("tgi_request_input_length", prepared.input_length)
        metrics.observe("tgi_request_max_new_tokens", min(prepared.request.sampling.max_new_tokens, STEP_BUDGET))
        return prepared

    async def prepare_embeddings(self, inputs: Sequence[str | list[int]], **options: Any) -> list[EmbedRequest]:
        """Tokenise and check all; options as of `Embedder.prepare`. Raises as `prepare`."""
        self._check_engine()
        for given in inputs[:LOGGED_INPUTS]:
            self._debug("Input", given)
        service = self.api.service
        requests = await service.embedder.prepare(inputs, service.limits, group=self._group, **options)
        for request in requests:
            self.api.metrics.observe("tgi_request_input_length", len(request.prompt_ids))
            self.record.prompt_tokens += len(request.prompt_ids)
            self.api.history.follow(self.record, request.request_id)
        self.record.validated = time.monotonic()
        return requests

    async def wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`, which ends early when the client leaves."""
        return await until_gone(self.request.receive, work)

    async def complete(self, prepared: Prepared) -> list[Completion]:
        """All samples of a prompt, in the order the service gives them, each measured and logged."""
        completions = await self.api.service.complete(prepared)
        for completion in completions:
            self.finished(prepared, completion)
        return completions

    def finished(self, prepared: Prepared, completion: Completion) -> None:
        """Metrics, span and log line of one finished sample."""
        metrics, timings = self.api.metrics, completion.timings
        self.record.finished(completion)
        metrics.observe("tgi_request_mean_time_per_token_duration", timings.time_per_token)
        metrics.observe("tgi_request_generated_tokens", completion.generated_tokens)
        metrics.observe("tgi_request_skipped_tokens", 0)
        metrics.observe("tgi_request_time_to_first_token_duration", timings.time_to_first_token)
        if completion.generated_tokens > 1:
            after_first = max(timings.total - timings.time_to_first_token, 0.0)
            metrics.observe(
                "tgi_request_time_per_output_token_duration", after_first / (completion.generated_tokens - 1)
            )
        if completion.listed_tokens > FEW_ITEMS:
            self._large += [completion.tokens, completion.prefill]
        facts = facts_of(completion)
        if prepared.params is not self._logged:  # once a request, not once for each of its samples
            self._logged = prepared.params
            facts = {"parameters": parameters(prepared.params), **facts}
        self._debug("Output", completion.text)
        self.succeeded(timings, facts)

    def succeeded(self, timings: Timings, facts: dict[str, str | int]) -> None:
        """Durations, span and log line of a sample, or of an answer that has none."""
        metrics = self.api.metrics
        if not self.record.samples:
            self.record.took(timings)
        metrics.observe("tgi_request_duration", timings.total)
        metrics.observe("tgi_request_validation_duration", timings.validation)
        metrics.observe("tgi_request_queue_duration", timings.queue)
        metrics.observe("tgi_request_inference_duration", timings.inference)
        facts = {**facts, **self._identity}
        self._span.set(facts)
        logger.info("Success", extra={"span": (self._name, facts)})

    def _debug(self, name: str, text: str | Sequence[int]) -> None:
        """What TGI writes at `debug`: the text of a request, by its beginning."""
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s: %s", name, beginning_of(text), extra={"span": (self._name, {})})

    def headers(self) -> dict[str, str]:
        """Those that every generated answer carries."""
        headers = {
            "x-compute-type": self.api.config.compute_type,
            "x-compute-characters": str(self.characters),
        }
        if self.form.request_ids:
            headers["request-id"] = request_id(self.request.scope)
        headers.update(ignored_header(self.ignored))
        return headers

    def timing_headers(
        self, prompt_tokens: int, completions: Sequence[Completion], *, compute_time: bool = True
    ) -> dict[str, str]:
        """Headers of a whole answer: milliseconds and tokens, summed over the completions."""
        headers = self.headers()
        if compute_time:
            headers["x-compute-time"] = str(time.monotonic() - self.started)
        for name, field in _TIME_HEADERS:
            headers[name] = str(sum(int(getattr(one.timings, field) * 1000) for one in completions))
        headers["x-prompt-tokens"] = str(prompt_tokens)
        headers["x-generated-tokens"] = str(sum(one.generated_tokens for one in completions))
        return headers

    def embedding_headers(self, prompt_tokens: int, timings: Timings) -> dict[str, str]:
        """Headers of an answer without generated tokens."""
        headers = self.headers() | {"x-prompt-tokens": str(prompt_tokens)}
        headers["x-compute-time"] = str(time.monotonic() - self.started)
        return headers | {name: str(int(getattr(timings, field) * 1000)) for name, field in _TIME_HEADERS[:-1]}

    async def written(self, answer: Callable[[LongLists], Any], items: int) -> list[bytes]:
        """The JSON of an answer whose lists have `items` items; rendered in a thread if they are many."""
        if items <= FEW_ITEMS:
            return write(answer, items)
        return await asyncio.to_thread(write, answer, items)

    def answer(self, content: Content, headers: Mapping[str, str]) -> Response:
        """Hand the call over to an answer of JSON, which closes it when its reader has it."""
        self._answering = True
        return Answer(content, headers, self._close)

    def stream(
        self, events: AsyncGenerator[bytes, None], last_event: Callable[[TgiError], bytes] | None = None
    ) -> Response:
        """Hand the call over to an event stream, which closes it. `last_event`: see `EventStream`."""
        self._answering = True
        return EventStream(
            events,
            self.headers(),
            form=self.form,
            on_error=self.failed,
            on_end=lambda left: self._close(left),
            last_event=last_event,
        )


_TIME_HEADERS = (
    ("x-total-time", "total"),
    ("x-validation-time", "validation"),
    ("x-queue-time", "queue"),
    ("x-inference-time", "inference"),
    ("x-time-per-token", "time_per_token"),
)


def ignored_header(names: list[str]) -> dict[str, str]:
    """`x-tgi-ignored` with the fields that have no effect, if there are any."""
    if not names:
        return {}
    return {"x-tgi-ignored": ", ".join(map(_header_safe, sorted(set(names))[:IGNORED_NAMES]))}


def _header_safe(name: str) -> str:
    """A field name is the client's word: only plain characters of it get into a header."""
    path, hint = split_hint(name)
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "?" for c in path[:NAME_LENGTH])
    return safe + "".join(c for c in hint[:NAME_LENGTH] if c.isascii() and (c.isalnum() or c in " ._-()?"))
