"""Compiled grammars: made by threads beside the step loop, shared by text, the last used ones kept.

A grammar lives as long as a sequence holds it; beyond that a bounded number of them is kept. Imports no torch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from weakref import WeakValueDictionary

from llguidance import LLMatcher, LLTokenizer

from tgi.engine.grammar.state import Rules, mask_of
from tgi.grammar import GrammarError, compile_grammar, make_tokenizer
from tgi.messages import Grammar, Vocabulary

logger = logging.getLogger("tgi.engine")

WORKERS = 1
NICE = 10
MAX_KEPT = 256
MAX_KEPT_TEXT = 1 << 20
"""Characters of all kept grammars; compiled ones take some tens of bytes for each."""
STACK = 256 << 20
"""Bytes of address space for the stack of a thread that compiles: grammars that were tried in less must not end it."""
STACK_LOCK = threading.Lock()


@dataclass(slots=True, weakref_slot=True, eq=False)
class Compiled:
    """A grammar at the beginning of an answer."""

    grammar: Grammar
    matcher: LLMatcher
    seconds: float
    """That compiling took."""

    def copy(self) -> LLMatcher:
        """A matcher for one answer."""
        return self.matcher.deep_copy()


@dataclass(slots=True)
class Outcome:
    """What became of a grammar that was asked for: compiled, or why not."""

    grammar: Grammar
    compiled: Compiled | None
    error: str | None = None


class Grammars:
    """The store. All but the compiling itself happens on the thread of the step loop."""

    def __init__(self, vocab_size: int, max_kept: int = MAX_KEPT, max_kept_text: int = MAX_KEPT_TEXT) -> None:
        self.vocab_size = vocab_size
        self._max_kept, self._max_kept_text = max_kept, max_kept_text
        self._tokenizer: LLTokenizer | None = None
        self._cuts = self._introducing = False
        self._rules: Rules | None = None
        self._unknown: str | None = None
        """Why there can be no grammars."""
        self._pool: ThreadPoolExecutor | None = None
        self._outcomes: queue.SimpleQueue[Outcome | LLTokenizer | str] = queue.SimpleQueue()
        self._pending: set[Grammar] = set()
        self._waiting: list[Grammar] = []
        """Asked for before the vocabulary was there."""
        self._alive: WeakValueDictionary[Grammar, Compiled] = WeakValueDictionary()
        self._kept: OrderedDict[Grammar, Compiled] = OrderedDict()
        self._kept_text = 0

    @property
    def busy(self) -> bool:
        """Something is being made, or was and is still to be fetched from `finished`."""
        return bool(self._pending) or self._introducing

    @property
    def kept(self) -> int:
        """How many are kept though nobody may need them."""
        return len(self._kept)

    @property
    def rules(self) -> Rules:
        """What answers have in common; there once a grammar is."""
        assert self._rules is not None
        return self._rules

    @property
    def width(self) -> int:
        """Tokens that a mask tells of: the model's, and those that only the tokenizer has."""
        return self.vocab_size if self._tokenizer is None else max(self.vocab_size, self._tokenizer.vocab_size)

    def introduce(self, vocabulary: Vocabulary) -> None:
        """Make a tokenizer of it, in a thread."""
        if self._tokenizer is None:
            self._cuts, self._introducing = bool(vocabulary.tokenizer), True
            self._threads().submit(self._make_tokenizer, vocabulary)

    def want(self, grammar: Grammar) -> Compiled | None:
        """The grammar, if it is there; else `finished` will tell of it."""
        if (compiled := self._alive.get(grammar)) is not None:
            self._keep(compiled)
            return compiled
        if grammar not in self._pending:
            self._pending.add(grammar)
            self._start(grammar)
        return None

    def finished(self) -> list[Outcome]:
        """What became of grammars that were asked for, since the last call."""
        outcomes = []
        while not self._outcomes.empty():
            news = self._outcomes.get()
            if isinstance(news, Outcome):
                self._pending.discard(news.grammar)
                if news.compiled is not None:
                    self._alive[news.grammar] = news.compiled
                    self._keep(news.compiled)
                outcomes.append(news)
                continue
            self._introducing = False
            if isinstance(news, str):
                self._unknown = news
            else:
                self._tokenizer = news
                self._rules = Rules(mask_of(news.eos_tokens, self.width), self._cuts)
            waiting, self._waiting = self._waiting, []
            for grammar in waiting:
                self._start(grammar)
        return outcomes

    def close(self) -> None:
        """Begin nothing more."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self, grammar: Grammar) -> None:
        if self._unknown is not None:
            self._outcomes.put(Outcome(grammar, None, self._unknown))
        elif self._tokenizer is None:
            self._waiting.append(grammar)
        else:
            self._threads().submit(self._compile, self._tokenizer, grammar)

    def _keep(self, compiled: Compiled) -> None:
        grammar = compiled.grammar
        if self._kept.pop(grammar, None) is None:
            self._kept_text += len(grammar.text)
        self._kept[grammar] = compiled
        while len(self._kept) > self._max_kept or (self._kept_text > self._max_kept_text and len(self._kept) > 1):
            oldest, _ = self._kept.popitem(last=False)
            self._kept_text -= len(oldest.text)

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = deep_threads(WORKERS, "grammar", yielding=True)
        return self._pool

    def _make_tokenizer(self, vocabulary: Vocabulary) -> None:
        try:
            self._outcomes.put(make_tokenizer(vocabulary, self.vocab_size))
        except Exception as error:
            logger.exception("There can be no grammars with this tokenizer")
            self._outcomes.put(f"grammars cannot be used with this tokenizer ({type(error).__name__})")

    def _compile(self, tokenizer: LLTokenizer, grammar: Grammar) -> None:
        began = time.perf_counter()
        try:
            matcher = compile_grammar(tokenizer, grammar)
        except GrammarError as error:
            self._outcomes.put(Outcome(grammar, None, f"the grammar cannot be used: {error}"))
        except Exception as error:
            logger.exception("A grammar fails")
            self._outcomes.put(Outcome(grammar, None, f"the grammar cannot be used ({type(error).__name__})"))
        else:
            self._outcomes.put(Outcome(grammar, Compiled(grammar, matcher, time.perf_counter() - began)))


def deep_threads(count: int, name: str, *, yielding: bool = False) -> ThreadPoolExecutor:
    """Threads with a large stack, started now: the size is a setting of the whole process.

    yielding: let those that compute a step go first.
    """
    pool = ThreadPoolExecutor(count, thread_name_prefix=name, initializer=_yield if yielding else None)
    barrier = threading.Barrier(count + 1)
    with STACK_LOCK:
        before = threading.stack_size(STACK)
        try:
            for _ in range(count):
                pool.submit(barrier.wait)
        finally:
            threading.stack_size(before)
    barrier.wait()
    return pool


def _yield() -> None:
    """Lower this thread's priority, where threads have one."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
