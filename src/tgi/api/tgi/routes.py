"""TGI's own generation routes: POST `/`, `/generate` and `/generate_stream`.

Owns the translation between bodies and the service for these routes. They follow TGI to the letter
but for what docs/tgi-compatibility.md lists. `platform_routes` reuses the two answers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from tgi.api.openapi.document import documented
from tgi.api.server.access import Routes
from tgi.api.server.call import Call
from tgi.api.tgi.types import (
    BestOfSequence,
    CompatGenerateRequest,
    Details,
    GenerateRequest,
    GenerateResponse,
    PrefillToken,
    StreamDetails,
    StreamResponse,
    Token,
)
from tgi.api.wire.long_answer import LongLists
from tgi.api.wire.streaming import event
from tgi.serving.generation import rank
from tgi.serving.types import Completion, Delta, Prepared, SamplingParams, TextToken

routes = Routes()


@routes.post("/")
@documented("compat_generate", CompatGenerateRequest, list[GenerateResponse], StreamResponse)
async def compat_generate(request: Request) -> Response:
    """Generate tokens; with `stream` as server-sent events, else as an array of one answer."""
    async with Call(request) as call:
        return await compat_answer(call, await call.read(CompatGenerateRequest))


async def compat_answer(call: Call, body: CompatGenerateRequest) -> Response:
    """The answer of POST `/`, also for `/invocations`."""
    params = body.sampling(call.ignored)
    if params.return_full_text is None:
        params = replace(params, return_full_text=call.api.returns_full_text)
    if body.stream:
        return stream_answer(call, body.inputs, params)
    return await whole_answer(call, body.inputs, params, array=True)


@routes.post("/generate")
@documented("generate", GenerateRequest, GenerateResponse)
async def generate(request: Request) -> Response:
    """Generate tokens and answer when all are there."""
    async with Call(request) as call:
        body = await call.read(GenerateRequest)
        return await whole_answer(call, body.inputs, body.sampling(call.ignored), array=False)


@routes.post("/generate_stream")
@documented("generate_stream", GenerateRequest, None, StreamResponse)
async def generate_stream(request: Request) -> Response:
    """Generate tokens, each sent as an event; errors are events too."""
    async with Call(request) as call:
        body = await call.read(GenerateRequest)
        return stream_answer(call, body.inputs, body.sampling(call.ignored))


async def whole_answer(call: Call, inputs: str, params: SamplingParams, *, array: bool) -> Response:
    """One GenerateResponse, in an array where the route has it so."""
    call.characters = len(inputs)
    await call.take_samples(params.best_of or 1)
    prepared, completions = await call.wait(_generate(call, inputs, params))

    def answer(lists: LongLists) -> GenerateResponse | list[GenerateResponse]:
        whole = generate_response(prepared, completions, lists)
        return [whole] if array else whole

    body = await call.written(answer, sum(one.listed_tokens for one in completions))
    return call.answer(body, call.timing_headers(prepared.input_length, completions[:1]))


async def _generate(call: Call, inputs: str, params: SamplingParams) -> tuple[Prepared, list[Completion]]:
    prepared = await call.prepare(inputs, params, call.api.tgi_dialect)
    return prepared, rank(await call.complete(prepared))


def stream_answer(call: Call, inputs: str, params: SamplingParams) -> Response:
    """Events; the status is 200 whatever happens, as in TGI."""
    call.characters = len(inputs)
    return call.stream(_events(call, inputs, params))


async def _events(call: Call, inputs: str, params: SamplingParams) -> AsyncGenerator[bytes, None]:
    prepared = await call.prepare(inputs, params, call.api.tgi_dialect, stream=True)
    async with aclosing(call.api.service.stream(prepared)) as batches:
        async for deltas in batches:
            for delta in deltas:
                if delta.final is not None:
                    call.finished(prepared, delta.final)
            yield b"".join(event(stream_response(prepared, delta)) for delta in deltas)


def generate_response(prepared: Prepared, completions: list[Completion], lists: LongLists) -> GenerateResponse:
    """The best sample (the first), and the others in its details."""
    best, *others = completions
    text = _text(prepared, best)
    if not (prepared.params.details or prepared.params.decoder_input_details):
        return GenerateResponse(text)
    details = Details(
        finish_reason=best.finish_reason,
        generated_tokens=best.generated_tokens,
        seed=best.seed,
        prefill=lists.array(_prefill_token, best.prefill),
        tokens=lists.array(token, best.tokens),
        best_of_sequences=[_loser(prepared, one, lists) for one in others] or UNSET,
        top_tokens=_top_tokens(prepared, best, lists),
    )
    return GenerateResponse(text, details)


def _loser(prepared: Prepared, completion: Completion, lists: LongLists) -> BestOfSequence:
    return BestOfSequence(
        generated_text=_text(prepared, completion),
        finish_reason=completion.finish_reason,
        generated_tokens=completion.generated_tokens,
        seed=completion.seed,
        prefill=lists.array(_prefill_token, completion.prefill),
        tokens=lists.array(token, completion.tokens),
        top_tokens=_top_tokens(prepared, completion, lists),
    )


def stream_response(prepared: Prepared, delta: Delta) -> StreamResponse:
    """The event of one token."""
    final, details = delta.final, None
    if final is not None and prepared.params.details:
        details = StreamDetails(final.finish_reason, final.generated_tokens, final.seed, final.input_length)
    return StreamResponse(
        index=delta.position,
        token=token(delta.token),
        top_tokens=[token(one) for one in delta.token.top] or UNSET,
        generated_text=None if final is None else _text(prepared, final),
        details=details,
    )


def token(one: TextToken) -> Token:
    return Token(one.id, one.text, one.logprob, one.special)


def _text(prepared: Prepared, completion: Completion) -> str:
    """With `return_full_text` the whole prompt comes first, even when it was truncated."""
    return prepared.prompt + completion.text if prepared.params.return_full_text else completion.text


def _prefill_token(one: TextToken) -> PrefillToken:
    return PrefillToken(one.id, one.text, one.logprob)


def _top_tokens(prepared: Prepared, completion: Completion, lists: LongLists) -> list[list[Token]] | msgspec.UnsetType:
    if not prepared.params.top_n_tokens:
        return UNSET
    return lists.array(_alternatives, completion.tokens)


def _alternatives(one: TextToken) -> list[Token]:
    return [token(other) for other in one.top]
