"""Whether a grammar can be used, found out by processes that it may bring down.

Owns those processes (`process`), the time a grammar may take, and what is known of grammars that came before.
"""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import queue
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from tgi.errors import GenerationError
from tgi.grammar import MAX_TEXT
from tgi.messages import Grammar, Vocabulary, encode
from tgi.serving import frames
from tgi.serving.helper_process import HelperError, HelperProcess

PROCESSES = 2
SECONDS = 5.0
"""For one grammar, on a busy machine; llguidance's own limits end its work after less than two."""
MOST_ANSWER = 1 << 16
"""Bytes."""
MAX_KNOWN = 512
MAX_KNOWN_TEXT = 1 << 21
"""Characters of all grammars whose verdict is kept."""


class GrammarChecks:
    """Tries grammars, the same one once."""

    def __init__(self, vocabulary: Vocabulary, vocab_size: int) -> None:
        """vocab_size: rows of the model's logits."""
        self._begin = marshal.dumps((encode(vocabulary), vocab_size))
        self._pool = ThreadPoolExecutor(PROCESSES, thread_name_prefix="grammars")
        self._idle: queue.SimpleQueue[HelperProcess] = queue.SimpleQueue()
        self._processes: set[HelperProcess] = set()
        self._known: OrderedDict[Grammar, str | None] = OrderedDict()
        self._known_text = 0
        self._running: dict[Grammar, asyncio.Future[str | None]] = {}
        self._closed = False
        with contextlib.suppress(HelperError):  # the first grammar tries again, and says why it fails
            for _ in range(PROCESSES):  # now, since a start takes as long as hundreds of grammars
                self._idle.put(self._start())

    async def reason(self, grammar: Grammar) -> str | None:
        """Why a grammar cannot be used, a clause; None: it can. Raises GenerationError if that cannot be found out."""
        if len(grammar.text) > MAX_TEXT:
            return f"it has {len(grammar.text)} characters, and may have {MAX_TEXT}"
        if grammar in self._known:
            self._known.move_to_end(grammar)
            return self._known[grammar]
        running = self._running.get(grammar)
        if running is None:
            loop = asyncio.get_running_loop()
            running = self._running[grammar] = loop.run_in_executor(self._pool, self._try, grammar)
            running.add_done_callback(lambda done: self._learn(grammar, done))
        return await asyncio.shield(running)

    def close(self) -> None:
        """End the processes; grammars they work on fail."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self._processes):
            process.end()

    def _learn(self, grammar: Grammar, done: asyncio.Future[str | None]) -> None:
        self._running.pop(grammar, None)
        if done.cancelled() or done.exception() is not None:
            return
        self._known[grammar] = done.result()
        self._known_text += len(grammar.text)
        while len(self._known) > MAX_KNOWN or (self._known_text > MAX_KNOWN_TEXT and len(self._known) > 1):
            oldest, _ = self._known.popitem(last=False)
            self._known_text -= len(oldest.text)

    def _try(self, grammar: Grammar) -> str | None:
        try:
            text = grammar.text.encode().decode()
        except UnicodeEncodeError:
            return "it holds half of a surrogate pair"
        try:
            kind, answer = self._ask(marshal.dumps((grammar.kind, text)))
        except TimeoutError:
            return f"it is not compiled after {SECONDS:g} s"
        except ConnectionError:
            return "compiling it takes more memory or depth than a grammar may"
        return answer.decode() if kind == frames.FAILED else None

    def _ask(self, data: bytes) -> tuple[bytes, bytes]:
        """Of an idle process, or a new one. Raises GenerationError, TimeoutError, and ConnectionError if it died."""
        process = self._take()
        try:
            answer = process.ask(data, SECONDS, MOST_ANSWER)
        except BaseException as error:
            process.end()
            self._processes.discard(process)
            if isinstance(error, HelperError) or self._closed:
                raise GenerationError(str(error) or "the server stops") from None
            if isinstance(error, (OSError, ValueError)) and not isinstance(error, TimeoutError):
                raise ConnectionError from None
            raise
        self._idle.put(process)
        return answer

    def _take(self) -> HelperProcess:
        while not self._idle.empty():
            process = self._idle.get()
            if process.alive:
                return process
            self._processes.discard(process)
        return self._start()

    def _start(self) -> HelperProcess:
        process = HelperProcess("tgi.serving.grammars.process", "tries grammars", self._begin)
        self._processes.add(process)
        return process
