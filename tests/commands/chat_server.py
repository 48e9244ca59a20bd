"""A server for chats: streams what the last message asks it to, word by word, and keeps the requests."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ChatServer:
    """Answers `words N` with N words, `think` with reasoning before a word, `fail` with an error, else an echo."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.delay_s = delay_s
        self.left = threading.Event()
        """A client went away in the middle of its answer."""
        outer = self

        class Handler(_Handler):
            server_of = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_of: ChatServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(200, {"data": [{"id": "org/fake"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server_of.requests.append(body)
        self.server_of.keys.append(self.headers["authorization"])
        asked = body["messages"][-1]["content"]
        if asked == "fail":
            self.answer(422, {"error": {"message": "`top_p` is too odd", "type": "invalid_request_error"}})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        try:
            self.stream(asked)
        except OSError:
            self.server_of.left.set()

    def stream(self, asked: str) -> None:
        if asked == "think":
            self.event(choices=[{"delta": {"reasoning_content": "let me see"}}])
        words = (
            [f"w{n} " for n in range(int(asked.split()[1]))] if asked.startswith("words ") else [f"You said: {asked}"]
        )
        for word in words:
            self.event(choices=[{"delta": {"content": word}}])
            time.sleep(self.server_of.delay_s)
        self.event(choices=[{"delta": {}, "finish_reason": "stop"}])
        self.event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": len(words)})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, **fields: Any) -> None:
        self.wfile.write(b"data: " + json.dumps(fields).encode() + b"\n\n")
        self.wfile.flush()

    def answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
