"""How each API is asked for a stream of tokens, and what its events say.

Owns bodies, event shapes and how tokens are counted. TGI sends one event a token. OpenAI's events
carry text: one counts as one token until a usage says otherwise; then the pieces are scaled to it
(`Record.settle`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec

from tgi.bench.record import Record
from tgi.bench.sse import EventReader

Api = Literal["tgi", "openai-completions", "openai-chat"]
APIS: tuple[Api, ...] = ("tgi", "openai-completions", "openai-chat")
DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class Ask:
    """One generation to ask for."""

    prompt: str | list[int]
    """Text, or token ids where the API takes them."""
    prompt_tokens: int
    new_tokens: int
    cut: bool = False
    """The text is longer than needed; the server keeps its last `prompt_tokens` tokens (TGI only)."""


class Dialect(Protocol):
    """One API of one server."""

    @property
    def name(self) -> Api: ...

    @property
    def path(self) -> str: ...

    def body(self, ask: Ask) -> bytes:
        """The request."""
        ...

    def read(self, data: bytes, now: float, record: Record) -> None:
        """One event into the record. Raises msgspec.DecodeError for one that cannot be read."""
        ...


class StreamReader:
    """Sink of one request: bytes of its stream into its record."""

    def __init__(self, dialect: Dialect, record: Record) -> None:
        self._dialect = dialect
        self._record = record
        self._events = EventReader()

    def __call__(self, piece: bytes, now: float) -> None:
        record = self._record
        for data in self._events.feed(piece):
            if data == DONE:
                record.finished = True
                continue
            try:
                self._dialect.read(data, now, record)
            except msgspec.DecodeError as error:
                record.error = ("unreadable event", f"{error}: {data[:100].decode('utf-8', 'replace')}")


class _TgiDetails(msgspec.Struct):
    generated_tokens: int
    input_length: int | None = None


class _TgiToken(msgspec.Struct):
    """That there is one is all that matters."""


class _TgiEvent(msgspec.Struct):
    token: _TgiToken | None = None
    generated_text: str | None = None
    details: _TgiDetails | None = None
    error: str | None = None
    error_type: str = "error"


@dataclass(frozen=True)
class Tgi:
    """`/generate_stream`."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Put into `parameters` of every request."""
    name: Api = "tgi"
    path: str = "/generate_stream"

    def body(self, ask: Ask) -> bytes:
        parameters: dict[str, Any] = {
            "max_new_tokens": ask.new_tokens,
            "ignore_eos": True,
            "details": True,
            **self.parameters,
        }
        if ask.cut:
            parameters["truncate"] = ask.prompt_tokens
        return msgspec.json.encode({"inputs": ask.prompt, "parameters": parameters})

    def read(self, data: bytes, now: float, record: Record) -> None:
        event = _tgi_event.decode(data)
        if event.error is not None:
            record.error = (event.error_type, event.error)
        if event.token is not None:
            record.add(now, 1)
        if event.details is not None:
            record.reported_tokens = event.details.generated_tokens
            if event.details.input_length is not None:
                record.prompt_tokens = event.details.input_length
        if event.generated_text is not None:
            record.finished = True


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _OpenAIEvent(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


@dataclass(frozen=True)
class OpenAI:
    """`/v1/completions` or `/v1/chat/completions`."""

    name: Api
    model: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Put into every request."""
    plain: bool = False
    """Send OpenAI's own fields only: some servers refuse others."""

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.name == "openai-chat" else "/v1/completions"

    def body(self, ask: Ask) -> bytes:
        options: dict[str, Any] = {"include_usage": True}
        body: dict[str, Any] = {"model": self.model, "max_tokens": ask.new_tokens, "temperature": 0, "stream": True}
        if not self.plain:
            body["ignore_eos"] = True
        if self.name == "openai-chat":
            body["messages"] = [{"role": "user", "content": ask.prompt}]
            if not self.plain:
                # Tells an event that only brings the role from a token that has no text yet.
                options["continuous_usage_stats"] = True
        else:
            body["prompt"] = ask.prompt
        return msgspec.json.encode({**body, "stream_options": options, **self.extra})

    def read(self, data: bytes, now: float, record: Record) -> None:
        event = _openai_event.decode(data)
        if event.error is not None:
            record.error = _openai_error(event.error)
        seen = record.reported_tokens or 0
        if event.usage is not None:
            record.prompt_tokens = event.usage.prompt_tokens or record.prompt_tokens
            record.reported_tokens = event.usage.completion_tokens
        if not event.choices:
            return
        # Usage in an event that has a choice is the count so far: it says how many tokens this one brought.
        tokens = event.usage.completion_tokens - seen if event.usage is not None else _tokens(event.choices[0])
        if tokens > 0:
            record.add(now, tokens)
        if event.choices[0].finish_reason:
            record.finished = True
            record.doubtful = now if tokens <= 0 else None


def _tokens(choice: _Choice) -> int:
    """1 when a token came: perhaps without text, as a part of a character. The last event may bring none."""
    delta = choice.delta
    if delta is not None:
        text = delta.content or delta.reasoning_content or delta.reasoning
        return 1 if text or (delta.role is None and not choice.finish_reason) else 0
    return 1 if choice.text or not choice.finish_reason else 0


def _openai_error(error: Any) -> tuple[str, str]:
    """Kind and message of an error inside a stream."""
    if not isinstance(error, dict):
        return "error", str(error)
    kind = error.get("code") or error.get("http_status_code") or error.get("type") or "error"
    return str(kind), str(error.get("message", error))


_tgi_event = msgspec.json.Decoder(_TgiEvent)
_openai_event = msgspec.json.Decoder(_OpenAIEvent)
