"""One answer to a conversation while it is generated: its parts, and what is counted of them.

Owns the order "deltas -> parts" for the APIs that agents speak, whose whole answers are made of the same parts as their
streams. Does not own what the parts become on the wire (`api.responses`, `api.anthropic`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from tgi.api.openai.types import NAMELESS_MODELS
from tgi.api.server.call import Call
from tgi.api.server.chat import PreparedChat, prepare_chat
from tgi.serving.chat.conversation import Conversation
from tgi.serving.chat.parts import Part, Text
from tgi.serving.dialect import Dialect
from tgi.serving.generation_defaults import GenerationDefaults
from tgi.serving.types import Completion, SamplingParams, TextToken


class Turn:
    """The only sample of a request."""

    def __init__(self, call: Call, chat: PreparedChat, *, with_tokens: bool = False) -> None:
        """with_tokens: texts have their tokens."""
        self._call = call
        self._with_tokens = with_tokens
        self._pending: list[TextToken] = []
        """Tokens of which nothing has shown yet."""
        self._prepared = chat.prepared
        self._reader = chat.reader()
        self._blanks = Blanks()
        self.output_tokens = 0
        self.reasoning_tokens = 0
        """How many of them the model thought before it answered."""
        self.cached_tokens = 0
        """Prompt tokens that were in the prefix cache; known with the first part."""
        self.final: Completion | None = None
        """With the last part."""

    @property
    def input_tokens(self) -> int:
        return self._prepared.input_length

    @property
    def wanted_tokens(self) -> int | None:
        """Tokens that the answer may have by the request alone."""
        return self._prepared.params.max_new_tokens

    async def parts(self) -> AsyncGenerator[list[Part], None]:
        """The parts as they come, several for a slow reader, none for a token that does not show yet."""
        reader = self._reader
        async with aclosing(self._call.api.service.stream(self._prepared)) as batches:
            async for deltas in batches:
                parts: list[Part] = []
                for delta in deltas:
                    self.output_tokens += 1
                    self.reasoning_tokens += reader.reasons
                    self.cached_tokens = delta.cached_tokens
                    shown = self._blanks.feed(reader.feed(delta.text))
                    if delta.final is not None:
                        shown += self._blanks.feed(reader.end()) + self._blanks.end()
                        self.final = delta.final
                        self._call.finished(self._prepared, delta.final)
                    parts += self._with_its_tokens(delta.token, shown) if self._with_tokens else shown
                yield parts

    def _with_its_tokens(self, token: TextToken, shown: list[Part]) -> list[Part]:
        """What a token showed: its text has this token and those before that showed nothing, unless they are of a call
        or of reasoning."""
        self._pending.append(token)
        if not shown:
            return shown
        tokens, self._pending = tuple(self._pending), []
        last = max((place for place, part in enumerate(shown) if isinstance(part, Text)), default=None)
        return [replace(part, tokens=tokens) if place == last else part for place, part in enumerate(shown)]

    def headers(self) -> dict[str, str]:
        """Of the whole answer, once it is complete."""
        return (
            self._call.headers() if self.final is None else self._call.timing_headers(self.input_tokens, [self.final])
        )

    async def finish(self) -> list[Part]:
        """All parts."""
        return [part async for parts in self.parts() for part in parts]


class Blanks:
    """Leaves out text that is nothing but white space before, between and after the other parts.

    Models put line ends around reasoning and calls. Items and blocks of them mean nothing to anybody, and Anthropic's
    API refuses them when they are sent back.
    """

    def __init__(self) -> None:
        self._held = ""
        """White space that may begin a text."""
        self._in_text = False
        self._empty = True

    def feed(self, parts: list[Part]) -> list[Part]:
        """What of the parts is certain to show."""
        shown: list[Part] = []
        for part in parts:
            if isinstance(part, Text):
                shown += self._text(part.text)
                continue
            self._held, self._in_text, self._empty = "", False, False
            shown.append(part)
        return shown

    def _text(self, text: str) -> list[Part]:
        if not self._in_text:
            text, self._held = self._held + text, ""
            if not text.strip():
                self._held = text
                return []
            if not self._empty:
                text = text.lstrip()
            self._in_text, self._empty = True, False
        return [Text(text)] if text else []

    def end(self) -> list[Part]:
        """An answer that is white space alone is shown as it is."""
        return [Text(self._held)] if self._empty and self._held else []


def turn_sampling(
    defaults: GenerationDefaults,
    *,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    max_new_tokens: int | None,
    stop: Sequence[str] = (),
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    top_n_tokens: int | None = None,
) -> SamplingParams:
    """How to sample; `defaults` fill what is left open. 0 and 1 of `top_p`, 0 and -1 of `top_k` are off."""
    temperature = defaults.temperature if temperature is None else temperature
    top_p = defaults.top_p if top_p is None else top_p
    top_k = defaults.top_k if top_k is None else top_k
    return SamplingParams(
        temperature=temperature,
        do_sample=temperature != 0,
        top_p=None if top_p in (0, 1) else top_p,
        top_k=None if top_k in (0, -1) else top_k,
        repetition_penalty=defaults.repetition_penalty,
        frequency_penalty=frequency_penalty,
        presence_penalty=presence_penalty,
        max_new_tokens=max_new_tokens,
        stop=list(stop),
        top_n_tokens=top_n_tokens,
    )


async def prepare_turn(
    call: Call,
    conversation: Conversation,
    params: SamplingParams,
    dialect: Dialect,
    names: Mapping[str, str],
    form_field: str,
    stream: bool,
) -> PreparedChat:
    """As `prepare_chat`, by this dialect's names; `serving` knows those of OpenAI's chat, which are `names`'s keys.

    form_field: what asks for the form of an answer.
    """
    dialect = dialect.renamed({"grammar": "tools" if conversation.grammar is None else form_field})
    chat = await prepare_chat(call, conversation, params, dialect, stream)
    call.ignored[:] = [names.get(name, name) for name in call.ignored]
    return chat


def check_model(call: Call, name: str | None) -> None:
    """Any name is accepted while there is one model; one that means something else is noted."""
    if name is not None and name not in (*call.api.known_names, *NAMELESS_MODELS) and "://" not in name:
        call.ignored.append("model")
