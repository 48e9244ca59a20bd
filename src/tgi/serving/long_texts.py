"""The parent's side of `tokenizer_process`: one process, started when the first very long text comes.

Owns its start, its time limit, and what happens without it: then the text is tokenised here, which holds up the other
threads. Calls block, so they belong in threads.
"""

from __future__ import annotations

import logging
import marshal
import threading
from array import array
from pathlib import Path

from tgi.serving import frames
from tgi.serving.helper_process import HelperError, HelperProcess
from tgi.serving.spans import TokenSpans
from tgi.serving.tokenizer_library import TokenizerError

logger = logging.getLogger(__name__)

SECONDS = 120.0
"""For one text; two megabytes take some seconds."""
BYTES_OF_A_CHARACTER = 64
"""Of an answer, at most: four tokens with three numbers each, and some."""
MARSHAL_VERSION = 2


class LongTexts:
    """Tokenises one text after another in a process of its own. Safe to use from several threads."""

    def __init__(self, model_path: str | Path, tokenizer_config_path: str | Path | None = None) -> None:
        """The paths that `Tokenizer.load` takes."""
        config = None if tokenizer_config_path is None else str(tokenizer_config_path)
        self._begin = marshal.dumps((str(model_path), config))
        self._lock = threading.Lock()
        self._process: HelperProcess | None = None
        self._closed = False

    def ids(self, text: str, add_special_tokens: bool) -> list[int] | None:
        """Token ids; None when the process cannot be used. Raises TokenizerError."""
        numbers = self._ask("ids", text, add_special_tokens)
        return None if numbers is None else numbers.tolist()

    def spans(self, text: str, add_special_tokens: bool) -> TokenSpans | None:
        """Tokens with their places; None when the process cannot be used. Raises TokenizerError."""
        numbers = self._ask("spans", text, add_special_tokens)
        if numbers is None:
            return None
        count = len(numbers) // 3
        return TokenSpans.of_arrays(text, numbers[:count], numbers[count : 2 * count], numbers[2 * count :])

    def close(self) -> None:
        """End the process; a text it works on fails."""
        self._closed = True
        self._end()

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return self._process.pid if self._process else None

    def _answer(self, data: bytes, most: int) -> tuple[bytes, bytes]:
        """Of the process, or of a new one where that has died since the last text. Raises as `HelperProcess.ask`."""
        if self._process is not None and self._process.alive:
            try:
                return self._process.ask(data, SECONDS, most)
            except TimeoutError:
                raise
            except (OSError, ValueError):
                self._end()
        if self._closed:
            raise HelperError("the server stops")
        self._process = self._start()
        return self._process.ask(data, SECONDS, most)

    def _start(self) -> HelperProcess:
        from tgi.serving import tokenizer_process  # which imports `tokenizer`, which imports this

        return HelperProcess(tokenizer_process.__name__, "tokenises long texts", self._begin)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def _ask(self, task: str, text: str, add_special_tokens: bool) -> array[int] | None:
        data = marshal.dumps((task, text, add_special_tokens), MARSHAL_VERSION)
        with self._lock:
            try:
                kind, answer = self._answer(data, BYTES_OF_A_CHARACTER * max(len(text), 1024))
            except TimeoutError:
                self._end()
                raise TokenizerError(f"the text is not tokenised after {SECONDS:g} s") from None
            except (HelperError, OSError, ValueError) as error:
                self._end()
                if self._closed:
                    raise TokenizerError("the server stops") from None
                logger.warning(
                    "A text of %d characters is tokenised in the server itself, which holds up other requests: %s",
                    len(text), str(error) or "the process for long texts ended",
                )  # fmt: skip
                return None
        if kind == frames.FAILED:
            raise TokenizerError(answer.decode())
        numbers = array("I")
        numbers.frombytes(answer)
        return numbers
