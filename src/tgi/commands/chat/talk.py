"""One answer: asked for, written as it comes, and kept as far as it came.

Ctrl-C stops it and keeps the part that is there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tgi.commands.chat import keys, parameters
from tgi.commands.chat.client import Server
from tgi.commands.chat.conversation import Conversation
from tgi.commands.chat.screen import Screen


@dataclass
class Answer:
    """What came of it."""

    text: str = ""
    finish: str | None = None
    """The server's word for its end; None: it was stopped."""
    new_tokens: int = 0
    seconds: float = 0.0
    """From the first piece to the last."""

    @property
    def facts(self) -> str:
        """A line about it."""
        if self.finish is None:
            return "stopped; the part above is kept" if self.text else "stopped"
        parts = [f"{self.new_tokens} token{'s' if self.new_tokens > 1 else ''}"] if self.new_tokens else []
        if self.new_tokens > 1 and self.seconds > 0:
            parts.append(f"{(self.new_tokens - 1) / self.seconds:.1f} tokens/s")
        if self.finish == "length":
            parts.append("cut at the most tokens an answer may have: /set max_tokens")
        return ", ".join(parts)


def answer(server: Server, model: str, conversation: Conversation, screen: Screen) -> Answer:
    """Have the conversation's last question answered; the answer becomes part of it. Raises ChatError."""
    found, began = Answer(), 0.0
    pieces = server.stream(model, conversation.request(), parameters.body(conversation.values))
    try:
        with keys.held():
            for piece in pieces:
                began = began or time.monotonic()
                if piece.reasoning:
                    screen.reasoning(piece.reasoning)
                if piece.text:
                    found.text += piece.text
                    screen.text(piece.text)
                found.finish = piece.finish or found.finish
                found.new_tokens = piece.new_tokens or found.new_tokens
    except KeyboardInterrupt:
        found.finish = None
    finally:
        pieces.close()
        found.seconds = time.monotonic() - began if began else 0.0
        screen.end_line()
        if found.text:
            conversation.answer(found.text)
    return found
