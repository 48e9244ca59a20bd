"""The process that tokenises very long texts:

    python -P -m tgi.serving.tokenizer_process < SOCKET

The library gives the tokens of a text back as objects, and holds the interpreter's lock while it makes and frees them:
a tenth of a second for two megabytes, in which a server would do nothing else. Here nobody waits for that.

The parent (`long_texts`) sends marshalled values in frames: first the paths that `Tokenizer.load` takes, then tasks:
("ids" | "spans", text, add_special_tokens). Back come arrays of unsigned 32-bit numbers, of "spans" ids, starts and
stops one after another, behind one byte that says what it is; after a failure why.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import socket
import sys
from array import array

from tgi.serving.frames import FAILED, READY, TEXT, receive, send
from tgi.serving.tokenizer import Tokenizer
from tgi.serving.tokenizer_library import TokenizerError


def main() -> int:
    """Serve tasks until the socket closes."""
    connection = socket.socket(fileno=os.dup(0))
    first = receive(connection)
    if first is None:
        return 0
    tokenizer = Tokenizer.load(*marshal.loads(first))
    send(connection, READY)
    while (data := receive(connection)) is not None:
        send(connection, _answer(tokenizer, *marshal.loads(data)))
    return 0


def _answer(tokenizer: Tokenizer, task: str, text: str, add_special_tokens: bool) -> bytes:
    try:
        if task == "ids":
            return TEXT + array("I", tokenizer.encode(text, add_special_tokens)).tobytes()
        spans = tokenizer.spans(text, add_special_tokens)
    except TokenizerError as error:
        return FAILED + str(error).encode("utf-8", "backslashreplace")
    return TEXT + spans.ids.tobytes() + spans.starts.tobytes() + spans.stops.tobytes()


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError):
        sys.exit(main())
