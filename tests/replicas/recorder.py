"""A wire between any client and a server that keeps the bytes of the answers."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

RANDOM = (
    (rb'"(id|tool_call_id)": ?"(chatcmpl-|cmpl-|resp_|msg_|call_)[^"]*"', rb'"\1":"ID"'),
    (rb'"(created|created_at)": ?\d+', rb'"\1":0'),
)
"""What differs between any two answers."""
OF_THE_REPLICA = {b"x-tgi-replica", b"x-request-id", b"date", b"connection", b"transfer-encoding", b"content-length"}
"""Headers that may differ, or that belong to a connection."""
TIMES = re.compile(rb"x-.*(time|duration|per-token|-start|-end).*")


class Recorder:
    """Use as a context; `url` leads to the server."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._there = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._answers: list[bytearray] = []

    def __enter__(self) -> Recorder:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def taken(self) -> tuple[bytes, dict[bytes, bytes], bytes]:
        """Status line, headers and body of the last answer, without what differs between any two."""
        head, _, body = bytes(self._answers[-1]).rpartition(b"HTTP/1.1 ")[2].partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        if headers.get(b"transfer-encoding") == b"chunked":
            body = dechunked(body)
        for pattern, instead in RANDOM:
            body = re.sub(pattern, instead, body)
        kept = {name: value for name, value in headers.items() if name not in OF_THE_REPLICA and not TIMES.match(name)}
        return status, kept, body

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._there)
                answer = bytearray()
                self._answers.append(answer)
                for source, target, kept in ((client, server, None), (server, client, answer)):
                    threading.Thread(target=pump, args=(source, target, kept), daemon=True).start()


def pump(source: socket.socket, target: socket.socket, kept: bytearray | None) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            if kept is not None:
                kept += data
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def dechunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        whole, body = whole + body[:length], body[length + 2 :]
    return whole
