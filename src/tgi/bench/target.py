"""The server that is measured: which API it speaks, what it serves, how long its words are.

Owns finding that out, and sending one request. Raises BenchError in sentences for the user where
nothing can be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tgi.bench.dialects import Api, Ask, Dialect, OpenAI, StreamReader, Tgi
from tgi.bench.errors import BenchError, RequestError, StatusError
from tgi.bench.http import Client
from tgi.bench.prompts import Scale
from tgi.bench.record import Record

PROBE_WORDS = (16, 48)
_NONE: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Target:
    """A server that answered."""

    client: Client
    dialect: Dialect
    model: str
    scale: Scale = field(default_factory=Scale)
    notes: tuple[str, ...] = ()
    """What makes figures differ from what was asked for."""

    async def send(
        self,
        ask: Ask,
        body: bytes | None = None,
        at: float | None = None,
        begin: Callable[[Record], None] | None = None,
    ) -> Record:
        """Send one request and read its stream to the end; failures are in the record.

        `at`: when it should have been sent, if it was to be at a given moment; `begin` gets the record
        before anything is sent.
        """
        record = Record(ask.prompt_tokens, ask.new_tokens)
        content = self.dialect.body(ask) if body is None else body
        if begin is not None:
            begin(record)
        record.sent = self.client.clock() if at is None else at
        try:
            await self.client.post(self.dialect.path, content, StreamReader(self.dialect, record))
        except RequestError as error:
            record.error = (error.kind, error.message)
        record.ended = self.client.clock()
        record.settle()
        if record.error is None and not record.finished:
            record.error = ("incomplete", "the stream ended before its last event")
        elif record.error is None and not record.times:
            record.error = ("no tokens", "the answer has no token")
        return record


async def find(
    client: Client,
    api: Api | None = None,
    model: str | None = None,
    extra: Mapping[str, Any] = _NONE,
    *,
    text: Callable[[int], str],
) -> Target:
    """Find out what the server speaks and serves, and measure its words with two short prompts of `text`.

    `extra` goes into every request (TGI: into its `parameters`). Raises BenchError.
    """
    try:
        dialects, model = await _look(client, api, model, extra)
        return await _probe(client, dialects, model, text)
    except RequestError as error:
        raise BenchError(_sentence(client, error)) from None


async def _look(
    client: Client, api: Api | None, model: str | None, extra: Mapping[str, Any]
) -> tuple[list[Dialect], str]:
    """The dialects to try in this order, and the name of the model."""
    if api in (None, "tgi"):
        status, info = await client.get("/info")
        served = info.get("model_id") if status == 200 and isinstance(info, dict) else None
        if isinstance(served, str) and (api == "tgi" or "max_total_tokens" in info):
            if model not in (None, served):
                raise BenchError(f"model {model!r} is not there: the server serves {served!r}")
            return [Tgi(extra)], served
        if api == "tgi":
            return [Tgi(extra)], model or "unknown"
    model = await _listed(client, api, model)
    names: tuple[Api, ...] = (api,) if api else ("openai-completions", "openai-chat")
    return [OpenAI(name, model, extra) for name in names], model


async def _listed(client: Client, api: Api | None, model: str | None) -> str:
    """The model to name in requests. Raises BenchError when it is not listed, or there is none to choose."""
    status, answer = await client.get("/v1/models")
    if status in (401, 403):
        raise StatusError(status, "")
    try:
        listed = [one["id"] for one in answer["data"]]
    except (TypeError, KeyError):
        listed = []
    if not listed and model is None:
        if api is None:
            raise BenchError(
                f"{client.url} answers, but neither as TGI (/info) nor as an OpenAI-compatible server (/v1/models: "
                f"status {status}); is the address right? --api and --model say what cannot be found out"
            )
        raise BenchError(f"{client.url} does not list its models (/v1/models: status {status}); name one with --model")
    if model is not None and listed and model not in listed:
        raise BenchError(f"model {model!r} is not there: the server lists {', '.join(map(repr, listed[:8]))}")
    return model or listed[0]


async def _probe(client: Client, dialects: list[Dialect], model: str, text: Callable[[int], str]) -> Target:
    """The first dialect that works, with the length of its words."""
    refused: Record | None = None
    for dialect in dialects:
        target = Target(client, dialect, model)
        record = await _one(target, text, PROBE_WORDS[0])
        if isinstance(dialect, OpenAI) and _status(record) in (400, 422):
            target = replace(target, dialect=replace(dialect, plain=True))
            retried = await _one(target, text, PROBE_WORDS[0])
            if retried.ok:
                note = "the server takes OpenAI's own fields only: without ignore_eos answers may be short"
                target, record = replace(target, notes=(note,)), retried
        if record.ok:
            longer = await _one(target, text, PROBE_WORDS[1])
            return _scaled(target, record, longer)
        refused = refused or record
        if _status(record) not in (404, 405):
            break
    assert refused is not None and refused.error is not None
    kind, message = refused.error
    status = _status(refused)
    raise StatusError(status, message) if status else RequestError(kind, message)


async def _one(target: Target, text: Callable[[int], str], words: int) -> Record:
    return await target.send(Ask(text(words), 0, 1))


def _scaled(target: Target, few: Record, many: Record) -> Target:
    if not few.ok or not many.ok or not few.prompt_tokens or many.prompt_tokens <= few.prompt_tokens:
        note = "the server does not tell the length of prompts: a word is taken for a token"
        return replace(target, notes=(*target.notes, note))
    scale = Scale.of((PROBE_WORDS[0], few.prompt_tokens), (PROBE_WORDS[1], many.prompt_tokens))
    return replace(target, scale=scale)


def _status(record: Record) -> int:
    kind = record.error[0] if record.error else ""
    return int(kind[5:]) if kind.startswith("HTTP ") else 0


def _sentence(client: Client, error: RequestError) -> str:
    said = f": {error.message}" if error.message else ""
    if not isinstance(error, StatusError):
        return error.message if client.url in error.message else f"{client.url}: {error.message}"
    if error.status in (401, 403):
        return f"{client.url} refuses the API key (status {error.status}){said}; give the right one with --api-key"
    if error.status in (404, 405):
        return f"{client.url} has no such route or model (status {error.status}){said}; is the address right?"
    return f"{client.url} refuses the first request (status {error.status}){said}"
