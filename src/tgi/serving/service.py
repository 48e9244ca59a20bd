"""All that serving a model needs, behind one object.

Owns the threads that tokenise, request numbers and the verdict on health. Does not own HTTP, permits
or metrics (`api`), nor the engine process (`launcher`).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from tgi.errors import ModelError, OverloadedError, ValidationError
from tgi.messages import GenerateRequest
from tgi.serving import generation
from tgi.serving.chat.family import Family, find_family
from tgi.serving.chat_template import RENDER_SECONDS, ChatTemplate, continues
from tgi.serving.dialect import Dialect
from tgi.serving.embeddings import Embedder
from tgi.serving.end_tokens import find_end_tokens
from tgi.serving.generation_defaults import FILE, NONE, GenerationDefaults, read_defaults
from tgi.serving.grammars.checks import GrammarChecks
from tgi.serving.grammars.vocabulary import make_vocabulary
from tgi.serving.languages import Languages, Route
from tgi.serving.long_texts import LongTexts
from tgi.serving.pooling import Pooling, find_pooling
from tgi.serving.spans import TokenSpans
from tgi.serving.tokenizer import Tokenizer
from tgi.serving.tokenizer_threads import LONG_TEXT, TokenizerThreads
from tgi.serving.types import Completion, Delta, Engine, Prepared, SamplingParams
from tgi.serving.validation import Checker, Limits, resolve_sampling, resolve_seeds
from tgi.settings.config import ApiConfig

logger = logging.getLogger(__name__)

RENDER_WORKERS = 2
"""Conversations of ordinary length that are rendered at once; a long one takes nobody's turn but that of long ones."""
RENDER_WAIT_SECONDS = 30.0
"""A conversation whose turn to be rendered has not come by then is refused, since others take all time."""
MANY_IDS = 1_000
"""More token ids than that among the parameters are checked in a thread."""
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Health:
    """What `/health?verbose=1` tells."""

    ok: bool
    """False when the engine is gone, or work waits and no step was made for long."""
    last_step_age_s: float
    steps: int
    running: int
    waiting: int
    open_requests: int


class Service:
    """Prompts in, text out. Belongs to one event loop."""

    def __init__(
        self,
        config: ApiConfig,
        engine: Engine,
        tokenizer: Tokenizer,
        chat_template: ChatTemplate,
        end_tokens: Mapping[int, Sequence[str]] | None = None,
        generation_defaults: GenerationDefaults = NONE,
        pooling: Pooling | None = None,
    ) -> None:
        self.config = config
        self.engine = engine
        self.tokenizer = tokenizer
        self.languages = Languages(tokenizer)
        self.chat_template = chat_template
        self.end_tokens = dict(end_tokens or {})
        """Token id -> the files that name it as an end of answers."""
        self.generation_defaults = generation_defaults
        """Those of the model, whether they are applied or not."""
        self._numbers = itertools.count(1)
        self._threads = TokenizerThreads(config.validation_workers)
        self._renderers = TokenizerThreads(RENDER_WORKERS)
        self._checks: asyncio.Task[GrammarChecks] | None = None
        self.embedder = Embedder(engine, tokenizer, self._threads, self._numbers, pooling or Pooling())

    @classmethod
    def load(cls, config: ApiConfig, engine: Engine) -> Service:
        """Read tokenizer and templates of `config.model_path`, and try the templates. Raises ModelError."""
        path = Path(config.model_path)
        tokenizer = Tokenizer.load(path, config.tokenizer_config_path)
        tokenizer.long_texts = LongTexts(path, config.tokenizer_config_path)
        template = ChatTemplate.load(path, tokenizer.named_tokens, config.tokenizer_config_path, config.chat_template)
        for warning in template.inspect():
            logger.warning("%s", warning)
        ends = find_end_tokens(path, tokenizer, template)
        defaults, pooling = _generation_defaults(path, config), find_pooling(path, config.pooling)
        service = cls(config, engine, tokenizer, template, ends, defaults, pooling)
        family = service.family
        logger.info("Calls of tools are read and written as %r, found by: %s", family.format.name, family.found_by)
        return service

    def close(self) -> None:
        """Let go of the threads, and end the processes that render templates and tokenise long texts."""
        self._threads.close()
        self._renderers.close()
        checks = self._checks
        if checks is not None and checks.done() and not checks.cancelled() and checks.exception() is None:
            checks.result().close()
        self.chat_template.close()
        if self.tokenizer.long_texts is not None:
            self.tokenizer.long_texts.close()

    async def grammars(self) -> GrammarChecks:
        """Who tries grammars; the first call tells the engine of the tokens, and takes a second for many of them."""
        if self._checks is None or (self._checks.done() and self._checks.exception() is not None):
            self._checks = asyncio.create_task(self._begin_grammars())
        return await asyncio.shield(self._checks)

    async def _begin_grammars(self) -> GrammarChecks:
        size = self.engine.info.vocab_size
        make = partial(make_vocabulary, self.tokenizer, size, self.eos_token_ids)
        vocabulary = await asyncio.to_thread(make)
        self.engine.introduce(vocabulary)
        return GrammarChecks(vocabulary, size)

    @cached_property
    def family(self) -> Family:
        """How the model writes calls and reasoning; renders a conversation when it is first asked for."""
        settings = self.tokenizer.special.settings.get("response_template")
        ends = frozenset(self.tokenizer.token_text(id) for id in self.end_tokens)
        return find_family(self.chat_template, self.tokenizer, ends, settings, self.config.tool_call_parser)

    @property
    def openai_defaults(self) -> GenerationDefaults:
        """What the OpenAI routes take for sampling parameters that a request leaves open."""
        return self.generation_defaults if self.config.generation_defaults == "model" else NONE

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The end tokens that the model can generate; the engine must be ready."""
        size = self.engine.info.vocab_size
        return tuple(id for id in self.end_tokens if id < size)

    def compare_with_model(self) -> None:
        """Say in the log where tokenizer and model do not fit together; the engine must be ready."""
        size = max(self.engine.info.vocab_size, self.engine.info.input_vocab_size)
        text_of = self.tokenizer.token_text
        if beyond := sorted(id for id in self.tokenizer.added if id >= size):
            logger.warning(
                "The model has no embedding for %d of the tokenizer's tokens, the first is %r with id %d of %d: "
                "prompts that hold them are refused. Resize the embedding to use them",
                len(beyond), text_of(beyond[0]), beyond[0], size,
            )  # fmt: skip
        elif (count := self.tokenizer.vocab_size) > size:
            logger.warning(
                "The tokenizer has %d tokens and the model %d: prompts that hold the others are refused",
                count, size,
            )  # fmt: skip
        for id, sources in self.end_tokens.items():
            if id >= size:
                logger.warning("The end token %d of %s is not one of the model's %d", id, " and ".join(sources), size)
        ends = [f"{text_of(id)!r} ({id}, {', '.join(self.end_tokens[id])})" for id in self.eos_token_ids]
        if ends:
            logger.info("Answers end with %s", ", ".join(ends))
        else:
            logger.warning(
                "No end token is known: answers run to their greatest length. Name one as eos_token_id in "
                "generation_config.json"
            )

    @property
    def limits(self) -> Limits:
        """The bounds of a request; the engine must be ready."""
        return Limits.of(self.config, self.engine.info)

    async def prepare(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams,
        dialect: Dialect,
        *,
        add_special_tokens: bool = True,
        stream: bool = False,
        started: float | None = None,
        waited: float = 0.0,
        cache_salt: str = "",
        group: int = 0,
        label: str = "",
    ) -> Prepared:
        """Check everything and tokenise. `prompt` is text or token ids (then nothing is added to it).

        `started`: time.monotonic() when the request came in; now if not given. `waited`: seconds of it that nothing was
        done with the request. `group`, `label`: see `messages.GenerateRequest`. Raises ValidationError.
        """
        started = time.monotonic() if started is None else started
        limits, begun = self.limits, self.engine.info.decoder_ids
        check = Checker(params, dialect, limits)
        if len(params.logit_bias) + len(params.stop_token_ids) > MANY_IDS:
            await self.in_turn(partial(check.check_parameters, stream))
        else:
            check.check_parameters(stream)
        route = self.languages.route(check, encodes=bool(begun))
        if isinstance(prompt, str):
            check.check_prompt(prompt)
            if self.tokenizer.byte_exact:
                check.check_length(prompt, self.tokenizer.longest_token)
            try:
                ids = await self._threads.run(
                    len(prompt), partial(self._encode, check, prompt, add_special_tokens, route)
                )
            except ValidationError:
                raise
            except Exception as error:  # a vocabulary without an unknown token, and text outside of it
                check.fail("inputs", f"tokenizer error {error}")
        else:
            if route.source is not None or route.prefix is not None:
                check.fail("inputs", "`src_lang` and `tgt_lang` need a text: put their tokens among the ids yourself")
            ids, prompt = await self._threads.run(len(prompt), partial(self._take_ids, check, prompt))
        if not ids:
            check.fail("inputs", "`inputs` cannot be empty")
        max_new_tokens = check.max_new_tokens(len(ids))
        check.check_grammar_support(self.config.disable_grammar_support)
        if params.grammar is not None:
            check.check_grammar(await (await self.grammars()).reason(params.grammar))
        validated = time.monotonic()
        request = GenerateRequest(
            request_id=next(self._numbers),
            prompt_ids=ids,
            sampling=resolve_sampling(params, dialect, limits, max_new_tokens, self.eos_token_ids),
            seeds=resolve_seeds(params),
            arrival=validated,
            cache_salt=cache_salt,
            group=group,
            decoder_ids=self.languages.beginning(begun, route.target),
            grammar=params.grammar,
            label=label,
        )
        return Prepared(request, prompt, params, dialect, started, validated, waited)

    def _encode(self, check: Checker, prompt: str, add_special_tokens: bool, route: Route) -> list[int]:
        """The ids of a text, each of which the model has."""
        ids = self.languages.apply(route, prompt, add_special_tokens, check.truncate)
        check.check_tokens(ids, self.tokenizer.token_text)
        return ids

    def _take_ids(self, check: Checker, prompt: Sequence[int]) -> tuple[list[int], str]:
        """What is kept of a prompt of ids, and the text of all."""
        check.check_prompt(prompt)
        return list(prompt[-check.truncate :] if check.truncate else prompt), self.tokenizer.decode(prompt)

    def stream(self, prepared: Prepared) -> AsyncGenerator[list[Delta], None]:
        """The request's deltas as they come; see `generation.stream`. Close it to abort the request."""
        return generation.stream(prepared, self.engine, self.tokenizer)

    async def complete(self, prepared: Prepared) -> list[Completion]:
        """All samples in index order; for `best_of` see `generation.rank`. Cancelling aborts the request."""
        return await generation.complete(prepared, self.engine, self.tokenizer)

    async def render_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        arguments: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool | None = None,
    ) -> str:
        """The prompt of a conversation, to be tokenised without special tokens.

        `arguments`: the request's `chat_template_kwargs`. Unless told otherwise, a last message of the
        assistant is continued, as TGI does. Raises TemplateError, and OverloadedError when its turn does not come.
        """
        if continue_final_message is None:
            continue_final_message = continues(messages)
        render = partial(
            self.chat_template.render,
            messages,
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            arguments=arguments,
            seconds=RENDER_SECONDS,
        )
        try:
            async with asyncio.timeout(RENDER_WAIT_SECONDS):
                return await self._renderers.run(_length(messages), render)
        except TimeoutError:
            raise OverloadedError("Model is overloaded: its chat template takes too long") from None

    async def tokenize(self, text: str, add_special_tokens: bool = True, field: str = "inputs") -> TokenSpans:
        """The tokens of a text with byte offsets. Raises ValidationError; `field` brought the text."""
        try:
            return await self._threads.run(len(text), partial(self.tokenizer.spans, text, add_special_tokens))
        except Exception as error:
            raise ValidationError(f"tokenizer error {error}", param=field) from error

    async def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens among it. Raises ValidationError for one that nobody has."""
        size = max(self.engine.info.vocab_size, self.tokenizer.vocab_size)
        return await self._threads.run(len(ids), partial(self._detokenize, ids, size))

    def _detokenize(self, ids: Sequence[int], size: int) -> str:
        wrong = next((id for id in ids if id >= size), None)
        if wrong is not None:
            message = f"`tokens` id {wrong} is out of vocabulary: ids are >= 0 and < {size}"
            raise ValidationError(message, param="tokens")
        return self.tokenizer.decode(ids)

    async def in_turn(self, function: Callable[[], Result]) -> Result:
        """A short piece of work for a large answer, in a thread that does one after another."""
        return await self._threads.in_turn(function)

    def health(self) -> Health:
        """By the heartbeat of steps; puts nothing into the engine."""
        engine, stats = self.engine, self.engine.stats
        age = time.monotonic() - engine.last_step_at
        stalled = engine.open_requests > 0 and age > self.config.health_stall_s
        ok = engine.alive and not stalled
        return Health(ok, age, stats.step, stats.running, stats.waiting, engine.open_requests)


def _generation_defaults(path: Path, config: ApiConfig) -> GenerationDefaults:
    """Those of the model, said in the log. Raises ModelError for damaged ones that would be applied."""
    applied = config.generation_defaults == "model"
    try:
        found = read_defaults(path)
    except ModelError as error:
        if applied:
            raise
        logger.warning("%s; it is not applied", error)
        return NONE
    if found != NONE:
        how = "are applied" if applied else "are not applied; --generation-defaults model applies them"
        logger.info("Sampling defaults of %s (%s) %s on the OpenAI routes", FILE, found, how)
    elif applied:
        logger.warning("--generation-defaults model has no effect: %s of the model names no sampling defaults", FILE)
    return found


def _length(messages: list[dict[str, Any]]) -> int:
    """Characters of a conversation, roughly; each message counts as a hundred beside its text. Stops at LONG_TEXT."""
    length = 100 * len(messages)
    for message in messages:
        if length >= LONG_TEXT:
            break
        content = message.get("content")
        for text in [part.get("text") for part in content] if isinstance(content, list) else [content]:
            length += len(text) if isinstance(text, str) else 0
    return length
