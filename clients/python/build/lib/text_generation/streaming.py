"""From the bytes of a server-sent-event answer to typed events; no network here.

`EventDecoder` splits bytes into the data of events; `StreamReader` turns those into types, raises
the errors found in a stream and notices its premature end. Both clients feed it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import pydantic

from text_generation.errors import IncompleteGenerationError, TextGenerationError, UnknownError, parse_error

T = TypeVar("T", bound=pydantic.BaseModel)


class EventDecoder:
    """Incremental decoder of `text/event-stream`, as WHATWG's HTML specifies it.

    Lines end in LF, CRLF or CR and may be cut anywhere, also inside a character; the space after
    `data:` is optional; comments and the other fields are skipped.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []
        self._after_carriage_return = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The data of each event that `chunk` completes."""
        if not chunk:
            return
        if self._after_carriage_return:
            # The CR that ended the last chunk already ended its line; this LF belongs to it.
            chunk = chunk.removeprefix(b"\n")
        lines = (self._rest + chunk).splitlines(keepends=True)
        self._rest = lines.pop() if lines and not lines[-1].endswith((b"\n", b"\r")) else b""
        self._after_carriage_return = not self._rest and bool(lines) and lines[-1].endswith(b"\r")
        for line in lines:
            text = line.rstrip(b"\r\n").decode("utf-8", errors="replace")
            if text == "":
                if self._data:
                    data, self._data = "\n".join(self._data), []
                    yield data
            elif text == "data" or text.startswith("data:"):
                self._data.append(text[5:].removeprefix(" "))

    def close(self) -> Iterator[str]:
        """The last event, if the stream ended right after its line without the blank line."""
        yield from self.feed(b"\n\n")


class StreamReader(Generic[T]):
    """Typed events of one answer. Feed it all chunks, then call `close`."""

    def __init__(self, event_type: type[T], is_last: Callable[[T], bool]) -> None:
        self._decoder = EventDecoder()
        self._event_type = event_type
        self._is_last = is_last
        self._done = False
        """[DONE] was read: nothing that follows counts."""
        self._ended = False
        """The generation's last event was read."""

    def feed(self, chunk: bytes) -> Iterator[T]:
        """Events completed by `chunk`. Raises the error that the stream carries."""
        yield from self._read(self._decoder.feed(chunk))

    def close(self) -> Iterator[T]:
        """What was left. Raises IncompleteGenerationError if the last event never came."""
        yield from self._read(self._decoder.close())
        if not self._ended and not self._done:
            raise IncompleteGenerationError("The stream ended before the generation did", status_code=200)

    def _read(self, events: Iterator[str]) -> Iterator[T]:
        for data in events:
            if self._done:
                return
            if data.strip() == "[DONE]":
                self._done = True
                return
            event = self._parse(data)
            self._ended = self._ended or self._is_last(event)
            yield event

    def _parse(self, data: str) -> T:
        try:
            payload: Any = json.loads(data)
        except ValueError:
            raise UnknownError(f"The stream carries an event that is not JSON: {data[:200]}", status_code=200) from None
        if isinstance(payload, dict) and payload.get("error") is not None:  # pyright: ignore[reportUnknownMemberType]
            raise parse_error(200, payload)
        return parse_answer(self._event_type, payload)


def parse_answer(answer_type: type[T], payload: Any) -> T:
    """`payload` as `answer_type`; UnknownError if it has another shape."""
    try:
        return answer_type.model_validate(payload)
    except pydantic.ValidationError as error:
        text = json.dumps(payload)[:200]
        raise UnknownError(f"The server's answer is no {answer_type.__name__}: {text}", status_code=200) from error


def answer_error(status_code: int, body: bytes, headers: Any) -> TextGenerationError:
    """The exception for an answer that is not 200, whatever its body."""
    text = body.decode("utf-8", errors="replace")
    try:
        payload: Any = json.loads(text)
    except ValueError:
        payload = text
    return parse_error(status_code, payload, headers=headers)
