"""The process that tries grammars first:

    python -P -m tgi.serving.grammars.process < SOCKET

A schema of some kilobytes can take a compiler all of its stack, or seconds; here that ends this process and nothing
else. Its parent (`checks`) sends marshalled values in frames: first a `messages.Vocabulary` in msgpack and the rows of
the model's logits, then (kind, text) of grammars, each answered by nothing, or by why it cannot be used.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
from llguidance import LLTokenizer

from tgi.grammar import GrammarError, compile_grammar, make_tokenizer, rehearse
from tgi.messages import Grammar, Vocabulary
from tgi.serving.frames import FAILED, READY, TEXT, receive, send

STACK = 64 << 20
"""Bytes; the engine has four times as much, so that it can compile whatever was compiled here."""
NICE = 19
"""Streams go on beside a burst of new grammars."""
MEMORY = 1 << 30
"""Bytes of address space that compiling may take."""


def main() -> int:
    """Serve tasks until the socket closes."""
    connection = socket.socket(fileno=os.dup(0))
    with contextlib.suppress(OSError):
        os.nice(NICE)
    first = receive(connection)
    if first is None:
        return 0
    data, vocab_size = marshal.loads(first)
    tokenizer = make_tokenizer(msgspec.msgpack.decode(data, type=Vocabulary), vocab_size)
    _limit_memory()
    send(connection, READY)
    while (data := receive(connection)) is not None:
        grammar = Grammar(*marshal.loads(data))
        reason = _deep(partial(_reason, tokenizer, grammar))
        send(connection, TEXT if reason is None else FAILED + reason.encode("utf-8", "backslashreplace"))
    return 0


def _reason(tokenizer: LLTokenizer, grammar: Grammar) -> str | None:
    try:
        rehearse(tokenizer, compile_grammar(tokenizer, grammar))
    except GrammarError as error:
        return str(error)
    return None


def _deep(function: Callable[[], str | None]) -> str | None:
    """The function's result, from a thread with our stack."""
    results: list[str | None] = []
    threading.stack_size(STACK)
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0] if results else "it fails"


def _limit_memory() -> None:
    """Of this process, and no core file when it dies of a deep grammar."""
    with contextlib.suppress(OSError, ValueError):
        own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = own + MEMORY + STACK
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError):
        sys.exit(main())
