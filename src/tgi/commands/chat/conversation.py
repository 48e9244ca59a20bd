"""What was said so far: messages, system prompt and parameters, with undo, and as a file.

Knows nothing of terminals or servers. Files are JSON; what others have written is read with suspicion.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tgi.commands.chat import parameters
from tgi.errors import StartupError
from tgi.untrusted import printable

ROLES = ("user", "assistant")
LARGEST_FILE = 64 << 20


class ConversationError(StartupError):
    """A file that holds no conversation, or cannot be read or written; the sentence is for the user."""


@dataclass
class Conversation:
    """Turns of user and assistant."""

    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    """Parameters that were set."""

    def request(self) -> list[dict[str, str]]:
        """Messages as the server takes them."""
        return [{"role": "system", "content": self.system}, *self.messages] if self.system else list(self.messages)

    def ask(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})

    def answer(self, text: str) -> None:
        self.messages.append({"role": "assistant", "content": text})

    def undo(self) -> bool:
        """Take back the last question with its answer; False where there is none."""
        while self.messages:
            if self.messages.pop()["role"] == "user":
                return True
        return False

    def forget_answer(self) -> bool:
        """Take back the last answer alone; False where there is no question to answer again."""
        while self.messages and self.messages[-1]["role"] == "assistant":
            self.messages.pop()
        return bool(self.messages)

    def clear(self) -> None:
        self.messages.clear()

    def save(self, name: str, model: str) -> Path:
        """Write the file, which only its user can read. Raises ConversationError."""
        path = Path(name).expanduser()
        content = {"model": model, "system": self.system, "parameters": self.values, "messages": self.messages}
        try:
            unnamed = path.with_name(f".{path.name}.{os.getpid()}")
            descriptor = os.open(unnamed, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps(content, ensure_ascii=False, indent=2) + "\n")
            unnamed.rename(path)
        except OSError as error:
            raise ConversationError(f"{path} cannot be written: {error.strerror or error}") from None
        return path

    def load(self, name: str) -> None:
        """Replace all by what a file has: one of ours, or a list of messages. Raises ConversationError."""
        path = Path(name).expanduser()
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise ConversationError(f"{path} is too large for a conversation")
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConversationError(f"{path} cannot be read: {error.strerror or error}") from None
        except (ValueError, RecursionError):
            raise ConversationError(f"{path} is not JSON") from None
        found = read_conversation({"messages": data} if isinstance(data, list) else data)
        self.system, self.messages, self.values = found.system, found.messages, found.values


def read_conversation(data: Any) -> Conversation:
    """A conversation from JSON. Raises ConversationError, which names what is wrong."""
    if not isinstance(data, dict) or not isinstance(data.get("messages"), list):
        raise ConversationError("the file holds no conversation: an object with `messages` is needed")
    found, system = Conversation(), data.get("system")
    for number, message in enumerate(data["messages"]):
        role = message.get("role") if isinstance(message, dict) else None
        text = message.get("content") if isinstance(message, dict) else None
        if role == "system" and number == 0 and isinstance(text, str):
            system = text
        elif role in ROLES and isinstance(text, str):
            found.messages.append({"role": role, "content": text})
        else:
            raise ConversationError(f"`messages.{number}` of the file is no message of a user or an assistant")
    if system is not None and not isinstance(system, str):
        raise ConversationError("`system` of the file is no text")
    found.system = system
    given = data.get("parameters") or {}
    if not isinstance(given, dict):
        raise ConversationError("`parameters` of the file is no object")
    for name, value in given.items():
        try:
            name, value = parameters.read(name, str(value))
        except parameters.ParameterError as error:
            raise ConversationError(f"`parameters` of the file: {printable(error)}") from None
        found.values[name] = value
    return found
