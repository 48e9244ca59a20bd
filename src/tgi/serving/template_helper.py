"""The parent's side of `template_process`: processes that render, kept warm, killed when they take too long.

Owns how many there are, and when one is started anew (`helper_process` starts and ends it). Knows nothing of what a
task means (`chat_template`). Calls block, so they belong in threads.
"""

from __future__ import annotations

import contextlib
import marshal
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from tgi.errors import TemplateError
from tgi.serving import template_process
from tgi.serving.frames import EXHAUSTED, FAILED
from tgi.serving.helper_process import HelperError, HelperProcess

MODULE = template_process.__name__
MAX_HELPERS = 3
GROW_AFTER_S = 0.05
"""Another process is started when a task has waited so long for one."""
MARSHAL_VERSION = 2
"""Later ones remember every object, to write it once: that takes three times as long."""
PIECE = 1_000
"""Messages that are marshalled at once, which holds up the other threads of the process."""
MAX_ANSWER = 64 << 20
"""Bytes; enough for the longest prompt. A process that sends more was taken over by a template."""


class HelperPool:
    """Processes that know the same templates. Safe to use from several threads."""

    def __init__(self, sources: Mapping[str, str], special_tokens: Mapping[str, str]) -> None:
        self._begin = marshal.dumps((dict(sources), dict(special_tokens)))
        self._idle: queue.LifoQueue[_Helper] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._helpers: list[_Helper] = []

    def ask(self, task: str, seconds: float, arguments: dict[str, Any], messages: Sequence[Any] = ()) -> str:
        """The answer to a task. Raises TemplateError when it fails, takes longer, or kills the process."""
        pieces = [messages[start : start + PIECE] for start in range(0, len(messages), PIECE)]
        data = b"".join(map(_marshalled, [(task, seconds, arguments), *pieces]))
        helper = self._take()
        try:
            return helper.ask(data, seconds)
        finally:
            self._idle.put(helper)

    def close(self) -> None:
        """End the processes; a task that runs fails. Another task would start one again."""
        with self._lock:
            for helper in self._helpers:
                helper.end()

    @property
    def pids(self) -> list[int]:
        """Process ids of those that run."""
        with self._lock:
            return [pid for helper in self._helpers if (pid := helper.pid) is not None]

    def _take(self) -> _Helper:
        try:
            return self._idle.get(timeout=GROW_AFTER_S if self._helpers else 0.0)
        except queue.Empty:
            with self._lock:
                if len(self._helpers) < MAX_HELPERS:
                    self._helpers.append(helper := _Helper(self._begin))
                    return helper
        return self._idle.get()


def _marshalled(value: Any) -> bytes:
    try:
        return marshal.dumps(value, MARSHAL_VERSION)
    except ValueError:  # subclasses, or other types than JSON's
        try:
            return marshal.dumps(_plain(value), MARSHAL_VERSION)
        except (ValueError, RecursionError) as error:
            raise TemplateError(f"the conversation cannot be given to the template: {error}") from None


def _plain(value: Any) -> Any:
    """The value in JSON's own types and tuples, as transformers gives it to templates. Raises ValueError for others."""
    match value:
        case None | bool():
            return value
        case str():
            return str.__str__(value)
        case int():
            return int.__int__(value)
        case float():
            return float.__float__(value)
        case Mapping():
            return {_plain(key): _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case tuple():
            return tuple(_plain(item) for item in value)
    raise ValueError(f"it holds a {type(value).__name__}")


class _Helper:
    """One process, used by one thread at a time; `end` may come from another."""

    def __init__(self, begin: bytes) -> None:
        self._begin = begin
        self._process: HelperProcess | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def ask(self, data: bytes, seconds: float) -> str:
        try:
            kind, text = self._answer(self._running(), data, seconds)
        except HelperError as error:
            raise TemplateError(str(error)) from None
        if kind == EXHAUSTED:
            self._restart()
            raise TemplateError("the template takes too much memory")
        if kind == FAILED:
            raise TemplateError(_text(text))
        return _text(text)

    def _answer(self, process: HelperProcess, data: bytes, seconds: float) -> tuple[bytes, bytes]:
        """What the process says. Raises HelperError, and TemplateError when the template is why there is none."""
        try:
            return process.ask(data, seconds, MAX_ANSWER)
        except TimeoutError:
            self._restart()
            raise TemplateError(f"the template did not finish in {seconds:g} s") from None
        except (OSError, ValueError):
            how = process.end()
            self._restart()
            raise TemplateError(f"the template ended the process that renders it ({how})") from None

    def _running(self) -> HelperProcess:
        """The process, started if need be. Raises HelperError."""
        if self._process is None or not self._process.alive:
            self._process = self._start()
        return self._process

    def _start(self) -> HelperProcess:
        return HelperProcess(MODULE, "renders chat templates", self._begin)

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def _restart(self) -> None:
        """So that the next task need not wait for the start; not when the process was ended by `end`."""
        process, self._process = self._process, None
        if process is not None:
            process.end()
            with contextlib.suppress(HelperError):  # the next task will tell
                self._process = self._start()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
