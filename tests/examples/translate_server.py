"""A stand-in server and a sample article for the tests of the translation example."""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

ROOT = Path(__file__).parents[2]
CLIENT = str(ROOT / "clients" / "python")
SCRIPT = str(ROOT / "examples" / "translate.py")

Answer: TypeAlias = tuple[int, dict[str, str], str]
"""Status, headers (`type` is the error_type), text."""


def load(name: str) -> ModuleType:
    """A module of `examples`, which is no package."""
    for path in (str(ROOT / "examples"), CLIENT):
        if path not in sys.path:
            sys.path.append(path)  # at the end: clients/python has a folder `tests` too
    return import_module(name)


def sample_article(tokens: int = 13_000, seed: int = 0) -> str:
    """Markdown of about so many tokens (4 characters each): headings, prose, lists, code."""
    chance = random.Random(seed)
    words = "the model reads a text and writes another one token by token".split()  # noqa: SIM905
    parts: list[str] = []
    while sum(map(len, parts)) < tokens * 4:
        number = len(parts)
        if number % 9 == 0:
            parts.append(f"## Chapter {number}")
        elif number % 9 == 4:
            parts.append("\n".join(f"- item {number}.{item} of {chance.choice(words)}" for item in range(4)))
        elif number % 9 == 7:
            parts.append(f"```python\nx = {number}\n\n\nprint(x)\n```")
        else:
            sentences = (
                f"In {number}.{item} " + " ".join(chance.choices(words, k=chance.randint(6, 20))) + chance.choice(".!?")
                for item in range(chance.randint(2, 12))
            )
            parts.append(" ".join(sentences))
    return "\n\n".join(parts) + "\n"


class FakeServer(ThreadingHTTPServer):
    """POST / and chat: `answer(prompt or question, number of the request)` gives status, headers and text."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Callable[[str, int], tuple[int, dict[str, str], str]] = lambda prompt, _: (
            200,
            {},
            translated(prompt),
        )
        self.bodies: list[dict[str, Any]] = []
        self.finish_reason = "stop"
        """Of answers of chat."""
        self.active = self.most_active = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """An interrupted client is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            number = len(self.server.bodies)
            self.server.active += 1
            self.server.most_active = max(self.server.active, self.server.most_active)
        status, headers, text = self.server.answer(
            body["inputs"] if "inputs" in body else body["messages"][-1]["content"], number
        )
        with self.server.lock:
            self.server.active -= 1
        details = {"finish_reason": "stop_sequence", "generated_tokens": 3, "seed": 1, "prefill": [], "tokens": []}
        payload: Any = [{"generated_text": text, "details": details}]
        if "messages" in body:
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": self.server.finish_reason}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            names = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": "f"}
            payload = {**names, "choices": [choice], "usage": usage}
        content = json.dumps(
            payload if status == 200 else {"error": text, "error_type": headers.pop("type", "")}
        ).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def source(prompt: str) -> str:
    """The article's text in a prompt of the default template."""
    return prompt.partition("\n\nEnglish: ")[2].rpartition("\n\nGerman:")[0]


def translated(prompt: str) -> str:
    return " " + source(prompt).upper() + "\n\n"
