"""One request to its end: engine events become text.

Owns the order "tokens -> text -> stop strings -> finish reason", one state per sample, and the abort
of a sample whose stop string was found. Does not own the socket (`engine_client`) nor what an HTTP
answer looks like (`api`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing

import msgspec

from tgi.errors import GenerationError, IncompleteGenerationError
from tgi.messages import Token, TokenEvent, unpack_prompt
from tgi.serving.detokenizer import Detokenizer
from tgi.serving.stop import StopStrings
from tgi.serving.tokenizer import Tokenizer
from tgi.serving.types import Completion, Delta, Engine, FinishReason, Prepared, TextToken, Timings

FEW_TOKENS = 1_024
"""Tokens of a prompt, alternatives too, that are made into text while others wait."""
DELTAS_AT_ONCE = 64


async def stream(prepared: Prepared, engine: Engine, tokenizer: Tokenizer) -> AsyncGenerator[list[Delta], None]:
    """Give the deltas of all samples as they come, several at once to a slow reader.

    Every sample ends with exactly one delta that has `final`; or the iterator raises GenerationError
    or IncompleteGenerationError. Closing it aborts the request.
    """
    prefill: list[TextToken] = []
    samples = [Sample(prepared, index, tokenizer, prefill) for index in range(len(prepared.request.seeds))]
    async with aclosing(engine.generate(prepared.request)) as batches:
        async for events in batches:
            deltas: list[Delta] = []
            for event in events:
                if event.prompt is not None:
                    await _read_prompt(prepared, event.prompt, tokenizer, prefill)
                sample = samples[event.index]
                for part in _parts(event):
                    if len(deltas) >= DELTAS_AT_ONCE:
                        yield deltas
                        deltas = []
                        await asyncio.sleep(0)
                    deltas.extend(sample.take(part))
                if sample.stopped_early:
                    engine.abort(prepared.request.request_id, event.index)
            if deltas:
                yield deltas
            if all(sample.done for sample in samples):
                return
    raise IncompleteGenerationError


async def complete(prepared: Prepared, engine: Engine, tokenizer: Tokenizer) -> list[Completion]:
    """All samples, finished, in index order. Raises as `stream`."""
    finals: list[Completion] = []
    async with aclosing(stream(prepared, engine, tokenizer)) as batches:
        async for deltas in batches:
            finals.extend(delta.final for delta in deltas if delta.final is not None)
    return sorted(finals, key=lambda completion: completion.index)


def rank(completions: Iterable[Completion]) -> list[Completion]:
    """Best first, by the model's own mean token log-probability (`best_of`); ties keep their order."""
    return sorted(completions, key=lambda completion: completion.mean_logprob, reverse=True)


class Sample:
    """The text of one sample while it grows."""

    def __init__(self, prepared: Prepared, index: int, tokenizer: Tokenizer, prefill: list[TextToken]) -> None:
        self._prepared = prepared
        self._index = index
        self._tokenizer = tokenizer
        self._prefill = prefill
        self._detokenizer = Detokenizer(tokenizer, prepared.begun_ids)
        self._stop = StopStrings(prepared.params.stop, prepared.dialect.keeps_stop_in_text, tokenizer.special_texts)
        self._tokens: list[TextToken] = []
        self._text: list[str] = []
        self._own_logprobs = 0.0
        self._cached_tokens = 0
        self._scheduled = 0.0
        self._first_token = 0.0
        self.done = False
        self.stopped_early = False
        """A stop string ended the sample while the engine would go on."""

    def take(self, event: TokenEvent) -> list[Delta]:
        """The deltas of an event's tokens; nothing once the sample is done."""
        if self.done:
            return []
        self._cached_tokens = self._cached_tokens or event.cached_tokens
        self._scheduled = self._scheduled or event.scheduled
        if event.tokens:
            self._first_token = self._first_token or time.monotonic()
        deltas: list[Delta] = []
        last = len(event.tokens) - 1
        for number, token in enumerate(event.tokens):
            ending = event.finish if number == last and event.finish in ("length", "eos_token") else None
            deltas.append(self._step(token, ending))
            if self.done:
                self.stopped_early = ending is None
                return deltas
        if event.finish == "error":
            raise GenerationError(event.error or "the engine failed this request")
        if event.finish is not None:
            raise IncompleteGenerationError
        return deltas

    def _step(self, token: Token, ending: FinishReason | None) -> Delta:
        dialect, sampling = self._prepared.dialect, self._prepared.request.sampling
        if ending == "length" and not dialect.last_token_reports_length and token.id in sampling.eos_token_ids:
            ending = "eos_token"  # to OpenAI's clients `length` means that the text was cut
        text = self._detokenizer.step(token.id)
        shown = TextToken(
            id=token.id,
            text=text,
            logprob=finite(token.logprob),
            special=self._tokenizer.is_special(token.id),
            raw=self._tokenizer.token_bytes(token.id),
            top=[alternative(self._prepared, id, logprob, self._tokenizer) for id, logprob in token.top],
        )
        self._tokens.append(shown)
        own = finite(token.logprob if token.own is None else token.own)
        self._own_logprobs += -math.inf if own is None else own
        # OpenAI leaves out whatever stopped the text, be it a string or a token.
        ends = ending == "eos_token" and token.id in sampling.eos_token_ids  # else a grammar allows nothing more
        hidden = ends and not dialect.keeps_stop_in_text
        unseen = shown.special and text not in dialect.shown_special
        text = self._watch_special(text) if unseen else self._watch("" if hidden else text)
        reason = ending
        if self._stop.matched is not None and (ending is None or not dialect.last_token_reports_length):
            reason = "stop_sequence"  # TGI: the last allowed token always reports `length`
        if reason is not None and self._stop.matched is None:
            text += self._stop.flush()
        self._text.append(text)
        self.done = reason is not None
        final = self._finish(reason) if reason is not None else None
        return Delta(self._index, shown, text, len(self._tokens), self._prefill, final, self._cached_tokens)

    def _watch(self, text: str) -> str:
        """Look for stop strings, except in the tokens that must come first."""
        return self._stop.feed(text) if self._may_stop else text

    def _watch_special(self, text: str) -> str:
        """A special token never shows, but a stop string may name it."""
        return self._stop.feed_special(text) if self._may_stop else ""

    @property
    def _may_stop(self) -> bool:
        return len(self._tokens) > self._prepared.request.sampling.min_new_tokens

    def _finish(self, reason: FinishReason) -> Completion:
        prepared, now = self._prepared, time.monotonic()
        scheduled = self._scheduled or self._first_token
        inference = now - scheduled
        return Completion(
            index=self._index,
            text="".join(self._text),
            finish_reason=reason,
            seed=prepared.request.seeds[self._index] if prepared.request.sampling.do_sample else None,
            tokens=self._tokens,
            prefill=self._prefill,
            input_length=prepared.input_length,
            cached_tokens=self._cached_tokens,
            stop_sequence=self._stop.matched,
            mean_logprob=self._own_logprobs / len(self._tokens),
            timings=Timings(
                total=now - prepared.started,
                validation=prepared.validated - prepared.started - prepared.waited,
                queue=prepared.waited + max(0.0, scheduled - prepared.validated),
                inference=inference,
                time_per_token=inference / len(self._tokens),
                time_to_first_token=self._first_token - prepared.started,
            ),
        )


def _parts(event: TokenEvent) -> Iterator[TokenEvent]:
    """What has come for a slow reader may be all of its text: events of few tokens, the last with the end."""
    last = 0
    for start in range(0, len(event.tokens) - DELTAS_AT_ONCE, DELTAS_AT_ONCE):
        last = start + DELTAS_AT_ONCE
        part = msgspec.structs.replace(event, tokens=event.tokens[start:last], finish=None, error=None)
        yield part
    yield msgspec.structs.replace(event, tokens=event.tokens[last:]) if last else event


async def _read_prompt(prepared: Prepared, pieces: list[bytes], tokenizer: Tokenizer, prefill: list[TextToken]) -> None:
    """Fill `prefill`; of a long prompt, or one with many alternatives, in a thread."""
    listed = len(prepared.begun_ids) * (1 + max(prepared.request.sampling.prompt_logprobs, 0))
    if listed <= FEW_TOKENS:
        prefill.extend(prefill_tokens(prepared, pieces, tokenizer))
    else:
        await asyncio.to_thread(lambda: prefill.extend(prefill_tokens(prepared, pieces, tokenizer)))


def prefill_tokens(prepared: Prepared, pieces: list[bytes], tokenizer: Tokenizer) -> Iterator[TextToken]:
    """The prompt's tokens, or the decoder's first ones, with their log-probabilities (see `messages.pack_prompt`).

    TGI decodes each token by itself; for OpenAI the texts add up to the prompt.
    """
    detokenizer = Detokenizer(tokenizer)
    first = True
    for id, (logprob, top) in zip(prepared.begun_ids, unpack_prompt(pieces), strict=False):
        yield TextToken(
            id=id,
            text=tokenizer.decode([id]) if prepared.dialect.decodes_tokens_alone else detokenizer.step(id),
            logprob=None if first else finite(logprob),
            special=tokenizer.is_special(id),
            raw=tokenizer.token_bytes(id),
            top=[alternative(prepared, other, logprob, tokenizer) for other, logprob in top],
        )
        first = False


def alternative(prepared: Prepared, id: int, logprob: float, tokenizer: Tokenizer) -> TextToken:
    """A token that might have been: TGI decodes it by itself, for OpenAI it reads as in the text."""
    raw = tokenizer.token_bytes(id)
    text = tokenizer.decode([id]) if prepared.dialect.decodes_tokens_alone else raw.decode(errors="replace")
    return TextToken(id, text, finite(logprob), tokenizer.is_special(id), raw)


def finite(logprob: float) -> float | None:
    """JSON has no NaN and no infinity: None stands for both."""
    return logprob if math.isfinite(logprob) else None
