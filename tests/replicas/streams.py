"""Streams that a test reads in threads while it breaks what answers them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Count to 10"}], "temperature": 0, "ignore_eos": True}


@dataclass
class Answer:
    """A stream, by a thread of its own."""

    url: str
    number: int
    tokens: int
    replica: str = ""
    data: bytes = b""
    ended: float = 0.0
    status: int = 0
    error: Exception | None = None
    begun: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        text = f"{self.number} is the number of this conversation. Count to {self.number}"
        body = CHAT | {"messages": [{"role": "user", "content": text}], "stream": True, "max_tokens": self.tokens}
        try:
            with httpx.stream("POST", f"{self.url}/v1/chat/completions", json=body, timeout=120) as answer:
                self.status, self.replica = answer.status_code, answer.headers.get("x-tgi-replica", "")
                for piece in answer.iter_raw():
                    self.data += piece
                    self.begun.set()
        except httpx.HTTPError as error:
            self.error = error
        self.ended = time.monotonic()
        self.begun.set()

    @property
    def whole(self) -> bool:
        done = self.data.endswith(b"data: [DONE]\n\n") and b'"error"' not in self.data
        return self.status == 200 and self.error is None and done and self.data.count(b'"delta"') == self.tokens

    @property
    def ended_with_an_error_event(self) -> bool:
        events = self.data.strip().split(b"\n\n")
        return self.status == 200 and self.error is None and any(b'"error"' in event for event in events[-2:])


def streams(url: str, count: int, tokens: int) -> tuple[list[Answer], list[threading.Thread]]:
    answers = [Answer(url, number, tokens) for number in range(count)]
    threads = [threading.Thread(target=answer.run) for answer in answers]
    for thread in threads:
        thread.start()
    return answers, threads
