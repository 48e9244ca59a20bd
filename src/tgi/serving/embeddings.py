"""Texts in, vectors out: every check of `/v1/embeddings` and `LLM.embed`, and the way through the engine.

Owns the limits of such a request and how many of its texts are in the engine together. Does not own how vectors are
made (`engine.pooling`) nor how they are written (`api`).
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from tgi.errors import GenerationError, IncompleteGenerationError, ValidationError
from tgi.messages import EmbedRequest
from tgi.serving.dialect import OPENAI
from tgi.serving.pooling import Pooling
from tgi.serving.tokenizer import Tokenizer
from tgi.serving.tokenizer_threads import TokenizerThreads
from tgi.serving.types import Engine, SamplingParams
from tgi.serving.validation import Checker, Limits

MAX_INPUTS = 2048
"""Texts of one request, as at OpenAI."""
TOGETHER = 32
"""Texts of one request that are in the engine together: they fill its steps, and leave places in the batch."""
PIECE_INPUTS, PIECE_LENGTH = 64, 16_384
"""Texts, and characters or ids of them, that are tokenised in one go, some milliseconds; one text may be longer."""
Input = str | Sequence[int]


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vector of one text."""

    data: bytes
    """float32 in little-endian order."""
    prompt_tokens: int
    cached_tokens: int
    """Tokens found in the prefix cache."""
    scheduled: float
    """time.monotonic() when the engine began with it."""

    @property
    def embedding(self) -> list[float]:
        """The vector as numbers; its length is 1."""
        return list(struct.unpack(f"<{len(self.data) // 4}f", self.data))


class Embedder:
    """Makes vectors of texts with the engine's model."""

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, threads: TokenizerThreads, numbers: Iterator[int], pooling: Pooling
    ) -> None:
        """numbers: gives each request its own."""
        self.pooling = pooling
        self._engine, self._tokenizer, self._threads, self._numbers = engine, tokenizer, threads, numbers

    @property
    def problem(self) -> str | None:
        """Why the model gives no vectors, a sentence; the engine must be ready."""
        info = self._engine.info
        if info.decoder_ids:
            return f"{info.model_type} is a model with an encoder, of which no embeddings are made here"
        if not info.hidden_size:
            return f"{info.model_type} is computed by code that gives no hidden states"
        return self.pooling.problem

    async def prepare(
        self,
        inputs: Sequence[Input],
        limits: Limits,
        *,
        dimensions: int | None = None,
        add_special_tokens: bool = True,
        single: bool = False,
        group: int = 0,
    ) -> list[EmbedRequest]:
        """Check and tokenise all of them, before any runs. single: the request has one, not a list of one.

        Raises ValidationError, by the names of OpenAI's fields.
        """
        self._check(len(inputs), dimensions)
        requests: list[EmbedRequest] = []
        for piece in _pieces(inputs):
            names = ["input" if single else f"input[{number}]" for number in range(piece.start, piece.stop)]
            some = list(zip(names, inputs[piece.start : piece.stop], strict=True))
            length = sum(len(given) for _, given in some)
            for ids in await self._threads.run(length, partial(self._ids, some, limits, add_special_tokens)):
                request = EmbedRequest(
                    next(self._numbers), ids, self.pooling.kind, dimensions or 0, arrival=time.monotonic(), group=group
                )
                requests.append(request)
        return requests

    async def embed(
        self, requests: Sequence[EmbedRequest], advance: Callable[[], None] = lambda: None
    ) -> list[Embedding]:
        """The vectors in order; `advance` is called for each that is done.

        Cancelling aborts what is under way; so does the first failure, which is raised.
        """
        done: list[Embedding | None] = [None] * len(requests)
        numbers = iter(range(len(requests)))

        async def work() -> None:
            for number in numbers:
                done[number] = await self._embed(requests[number])
                advance()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(TOGETHER, len(requests))):
                    group.create_task(work())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [one for one in done if one is not None]

    async def _embed(self, request: EmbedRequest) -> Embedding:
        event = await self._engine.embed(request)
        if event.finish == "error":
            raise GenerationError(event.error or "the engine failed this request")
        if event.finish != "pooled":
            raise IncompleteGenerationError
        return Embedding(event.embedding, len(request.prompt_ids), event.cached_tokens, event.scheduled)

    def _check(self, count: int, dimensions: int | None) -> None:
        if (problem := self.problem) is not None:
            raise ValidationError(f"This model gives no embeddings: {problem}", param="model")
        check_count(count)
        most = self._engine.info.hidden_size
        if dimensions is not None and not 1 <= dimensions <= most:
            message = f"`dimensions` must be >= 1 and <= {most}, the model's hidden size. Given: {dimensions}"
            raise ValidationError(message, param="dimensions")

    def _ids(self, some: list[tuple[str, Input]], limits: Limits, add_special_tokens: bool) -> list[list[int]]:
        return [self._ids_of(given, _checker(name, limits), add_special_tokens) for name, given in some]

    def _ids_of(self, given: Input, check: Checker, add_special_tokens: bool) -> list[int]:
        check.check_prompt(given)
        if not isinstance(given, str):
            return list(given)
        if self._tokenizer.byte_exact:
            check.check_length(given, self._tokenizer.longest_token)
        try:
            ids = self._tokenizer.encode(given, add_special_tokens)
        except Exception as error:  # a vocabulary without an unknown token, and text outside of it
            check.fail("inputs", f"tokenizer error {error}")
        check.check_tokens(ids, self._tokenizer.token_text)
        if not ids:
            check.fail("inputs", "`inputs` cannot be empty")
        check.max_new_tokens(len(ids))  # of the limits: none is generated
        return ids


def _checker(name: str, limits: Limits) -> Checker:
    """The checks of a text that the request has under this name."""
    return Checker(SamplingParams(), OPENAI.renamed({"inputs": name}), limits)


def _pieces(inputs: Sequence[Input]) -> Iterator[slice]:
    """Which of them are tokenised in one go."""
    first = length = 0
    for number, given in enumerate(inputs):
        length += len(given)
        if length >= PIECE_LENGTH or number + 1 - first == PIECE_INPUTS or number + 1 == len(inputs):
            yield slice(first, number + 1)
            first, length = number + 1, 0


def check_count(inputs: int) -> None:
    """How many texts there are. Raises ValidationError."""
    if not 1 <= inputs <= MAX_INPUTS:
        raise ValidationError(f"`input` must hold 1 to {MAX_INPUTS} texts. Given: {inputs}", param="input")
