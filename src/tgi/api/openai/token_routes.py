"""`/tokenize` in TGI's shape and in vLLM's, `/detokenize` and `/tokenizer_info`.

The body of `/tokenize` says which shape is meant: `inputs` is TGI's, `prompt` and `messages` are vLLM's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tgi.api.openai.chat_routes import chat_conversation
from tgi.api.openai.token_types import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeChatRequest,
    TokenizePromptRequest,
    TokenizeResponse,
    TokenizerInfo,
)
from tgi.api.openapi.document import documented
from tgi.api.server.access import Routes
from tgi.api.server.call import Call, ignored_header
from tgi.api.state import api_of
from tgi.api.tgi.token_answer import TOKENS_AT_ONCE, text_answer, token_answer
from tgi.api.tgi.types import GenerateRequest, SimpleToken
from tgi.serving.chat.plan import plan_chat
from tgi.serving.spans import TokenSpans
from tgi.serving.tokenizer_info import tokenizer_info

routes = Routes()
encode = msgspec.json.Encoder().encode


@routes.post("/tokenize")
@documented(
    "tokenize",
    (GenerateRequest, TokenizePromptRequest, TokenizeChatRequest),
    (list[SimpleToken], TokenizeResponse),
)
async def tokenize(request: Request) -> Response:
    """Token ids: of `inputs` with byte offsets, as TGI; of `prompt` or `messages` with their number, as vLLM."""
    async with Call(request, counted=False) as call:
        data = await call.read_json()
        names = data if isinstance(data, dict) else {}
        if "inputs" not in names and ("prompt" in names or "messages" in names):
            call.speak_openai()
            if "messages" in names:
                return await _chat(call, await call.parse(TokenizeChatRequest, data))
            return await _prompt(call, await call.parse(TokenizePromptRequest, data))
        body = await call.parse(GenerateRequest, data)
        if body.parameters is not None:
            call.ignored += (f"parameters.{name}" for name in body.parameters.model_fields_set)
        return await token_answer(call, await call.wait(call.api.service.tokenize(body.inputs)))


@routes.post("/detokenize")
@documented("detokenize", DetokenizeRequest, DetokenizeResponse)
async def detokenize(request: Request) -> Response:
    """The text of token ids, in vLLM's shape; TGI has no such route."""
    async with Call(request, counted=False) as call:
        body = await call.read(DetokenizeRequest)
        body.check_model(call.api.known_names, call.ignored)
        return text_answer(call, await call.wait(call.api.service.detokenize(body.tokens)))


@routes.get("/tokenizer_info")
@documented("tokenizer_info", None, TokenizerInfo, errors=(401,))
async def get_tokenizer_info(request: Request) -> Response:
    """What tokenizer_config.json says, and the chat template that is used; with the API key where there is one."""
    service = api_of(request).service
    told = tokenizer_info(service.tokenizer, service.chat_template)
    return Response(encode(told), media_type="application/json")


async def _prompt(call: Call, body: TokenizePromptRequest) -> Response:
    body.check_model(call.api.known_names, call.ignored)
    spans = await call.wait(call.api.service.tokenize(body.prompt, body.add_special_tokens, field="prompt"))
    return _answer(call, spans, body.return_token_strs)


async def _chat(call: Call, body: TokenizeChatRequest) -> Response:
    body.check_model(call.api.known_names, call.ignored)
    call.ignored += body.without_prompt()
    return _answer(call, await call.wait(_chat_tokens(call, body)), body.return_token_strs)


async def _chat_tokens(call: Call, body: TokenizeChatRequest) -> TokenSpans:
    plan = await plan_chat(call.api.service, await chat_conversation(call, body, call.ignored))
    return await call.api.service.tokenize(plan.prompt, body.add_special_tokens, field="messages")


def _answer(call: Call, spans: TokenSpans, texts: bool) -> Response:
    """A TokenizeResponse; one with many tokens in pieces, each made when its turn comes."""
    headers = ignored_header(call.ignored)
    pieces = _pieces(call, spans, texts)
    if len(spans) <= TOKENS_AT_ONCE:
        return call.answer(b"".join(piece if isinstance(piece, bytes) else piece() for piece in pieces), headers)
    return call.answer(_in_turn(call, pieces), headers)


async def _in_turn(call: Call, pieces: Iterator[bytes | partial[bytes]]) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        yield piece if isinstance(piece, bytes) else await call.api.service.in_turn(piece)


def _pieces(call: Call, spans: TokenSpans, texts: bool) -> Iterator[bytes | partial[bytes]]:
    """The JSON of a TokenizeResponse: what is there already, and what makes more of it."""
    starts = range(0, len(spans), TOKENS_AT_ONCE)
    count, most = len(spans), call.api.service.engine.info.max_total_tokens
    yield b'{"count":%d,"max_model_len":%d,"tokens":[' % (count, most)
    yield from (partial(_ids, spans, start) for start in starts)
    yield b'],"token_strs":' + (b"[" if texts else b"null}")
    if texts:
        yield from (partial(_texts, call, spans, start) for start in starts)
        yield b"]}"


def _ids(spans: TokenSpans, start: int) -> bytes:
    return _items(spans.ids[start : start + TOKENS_AT_ONCE].tolist(), start)


def _texts(call: Call, spans: TokenSpans, start: int) -> bytes:
    name = call.api.service.tokenizer.fast.id_to_token
    return _items([name(id) or "" for id in spans.ids[start : start + TOKENS_AT_ONCE]], start)


def _items(some: list[int] | list[str], start: int) -> bytes:
    """Of an array, without its brackets."""
    return (b"," if start else b"") + encode(some)[1:-1]
