"""`/v1/completions`: several prompts at once, echo, and the legacy log-probabilities.

Owns the way from prompts to OpenAI's answer or chunks. Does not own sampling (`serving`).
`platform_routes` reuses `completion_answer`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from tgi.api.openai.completion_answer import CompletionAnswer
from tgi.api.openai.completion_types import Chunk, CompletionFinal, CompletionRequest
from tgi.api.openapi.document import documented
from tgi.api.server.access import Routes
from tgi.api.server.call import Call
from tgi.api.wire.errors import WordedError
from tgi.api.wire.streaming import encoded_event, event, merge, together
from tgi.serving.generation import rank
from tgi.serving.types import Completion, Delta, Prepared, SamplingParams, listed

routes = Routes()
SUFFIX = "Suffix is not supported and can be achieved by preprocessing the prompt."


@routes.post("/v1/completions")
@documented("completions", CompletionRequest, CompletionFinal, Chunk)
async def completions(request: Request) -> Response:
    """Continue one or several prompts; with `stream` as server-sent events."""
    async with Call(request, openai=True) as call:
        return await completion_answer(call, await call.read(CompletionRequest))


async def completion_answer(call: Call, body: CompletionRequest) -> Response:
    """The answer of `/v1/completions`, also for `/invocations`."""
    body.check_model(call.api.known_names, call.ignored)
    body.check_stream_options(call.ignored)
    if body.suffix is not None:
        raise WordedError(422, SUFFIX, "suffix not supported", param="suffix")
    params = await call.unhurried(body.completion_sampling, call.ignored, call.api.service.openai_defaults)
    await call.take_samples(max(body.samples, body.best_of or 1), len(body.prompt))
    prepared = await call.wait(_prepare(call, body, params))
    call.characters = sum(len(one.prompt) for one in prepared)
    answer = CompletionAnswer(call.api.served_model_id, body, prepared)
    if body.stream:
        return call.stream(_events(call, answer))
    groups = await call.wait(_complete(call, prepared, body.samples))
    headers = call.timing_headers(answer.prompt_tokens, [one for group in groups for one in group], compute_time=False)
    items = sum(one.listed_tokens for group in groups for one in group)
    return call.answer(await call.written(partial(answer.whole, groups), items), headers)


async def _prepare(call: Call, body: CompletionRequest, params: SamplingParams) -> list[Prepared]:
    """All prompts, before any of them runs: one that is wrong fails all."""
    prepared = []
    dialect = body.dialect(inputs="prompt", top_n_tokens="logprobs")
    for prompt in body.prompt:
        prepared.append(await call.prepare(prompt, params, dialect, stream=body.stream))
    return prepared


async def _complete(call: Call, prepared: list[Prepared], samples: int) -> list[list[Completion]]:
    """The samples of every prompt, the best `samples` of them where more were generated."""
    groups = await together(call.complete(one) for one in prepared)
    return [_best(group, samples) for group in groups]


def _best(completions: list[Completion], samples: int) -> list[Completion]:
    if len(completions) == samples:
        return completions
    cached = min(one.cached_tokens for one in completions)  # the others may share what the first one computed
    best = rank(completions)[:samples]
    return [replace(one, index=index, cached_tokens=cached) for index, one in enumerate(best)]


async def _events(call: Call, answer: CompletionAnswer) -> AsyncGenerator[bytes, None]:
    """Prompts interleave as their tokens come."""
    streams = [_deltas(call, number, one) for number, one in enumerate(answer.prepared)]
    async with aclosing(merge(streams)) as batches:
        async for number, deltas in batches:
            yield b"".join([await _event(call, answer, number, delta) for delta in deltas])
    if answer.body.include_usage:
        yield event(answer.last_chunk())


async def _event(call: Call, answer: CompletionAnswer, number: int, delta: Delta) -> bytes:
    """The event of one token, which may bring an echoed prompt."""
    items = listed(delta.prefill) if answer.echoes(number, delta) else 0
    return encoded_event(b"".join(await call.written(partial(answer.chunk, number, delta), items)))


async def _deltas(call: Call, number: int, prepared: Prepared) -> AsyncGenerator[tuple[int, list[Delta]], None]:
    async with aclosing(call.api.service.stream(prepared)) as batches:
        async for deltas in batches:
            for delta in deltas:
                if delta.final is not None:
                    call.finished(prepared, delta.final)
            yield number, deltas
