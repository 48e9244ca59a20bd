"""A chat that goes on: prompt, answer, prompt.

Owns the loop, what Ctrl-C and Ctrl-D mean in it, and the history of what was typed. prompt_toolkit is imported here
alone, when a prompt is needed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from tgi.commands.chat import slash
from tgi.commands.chat.client import ChatError, Server
from tgi.commands.chat.conversation import Conversation
from tgi.commands.chat.screen import Screen
from tgi.commands.chat.talk import answer

PROMPT, MORE = ">>> ", "... "
HISTORY = "chat-history"


class Session:
    """One chat with one server."""

    def __init__(self, server: Server, model: str, conversation: Conversation, screen: Screen) -> None:
        self.server, self.model, self.conversation, self.screen = server, model, conversation, screen

    def run(self, read: Callable[[], str]) -> int:
        """Until the end of the input; `read` gives what was typed, as `prompt` below. Exit status 0."""
        self.screen.note(f"{self.model} on {self.server.url}; /help shows what can be done, Ctrl-D ends")
        while True:
            try:
                self.take(read().strip())
            except KeyboardInterrupt:
                continue  # what was typed is dropped, as in a shell; an answer deals with it itself
            except (EOFError, slash.Quit):
                return 0

    def take(self, text: str) -> None:
        """A line: a command, or a question. Raises Quit."""
        if text.startswith("/") and not text.startswith("//"):
            slash.run(self, text)
        elif text:
            self.conversation.ask(text.removeprefix("/") if text.startswith("//") else text)
            self.answer()

    def answer(self) -> None:
        """Answer the last question; what goes wrong is told, and the question is taken back."""
        try:
            found = answer(self.server, self.model, self.conversation, self.screen)
        except ChatError as error:
            self.screen.error(str(error))
            if self.conversation.messages and self.conversation.messages[-1]["role"] == "user":
                self.conversation.undo()
            return
        if not found.text and found.finish is None:
            self.conversation.undo()  # stopped before it began
        if found.facts:
            self.screen.note(f"[{found.facts}]")

    def show_last(self) -> None:
        """The end of a conversation that was loaded."""
        for message in self.conversation.messages[-2:]:
            self.screen.text(f"{PROMPT if message['role'] == 'user' else ''}{message['content']}")
            self.screen.end_line()


def prompt(variables: Mapping[str, str]) -> Callable[[], str]:
    """A function that reads what is typed, with history, completion of commands, and several lines."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.output import ColorDepth

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.char_before_cursor == "\\" and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    path = history_file(variables)
    session: PromptSession[str] = PromptSession(
        PROMPT,
        multiline=True,
        prompt_continuation=MORE,
        key_bindings=keys,
        history=FileHistory(path) if path is not None else InMemoryHistory(),
        completer=WordCompleter([f"/{name}" for name in slash.COMMANDS], sentence=True),
        complete_while_typing=Condition(lambda: session.default_buffer.text.startswith("/")),
        color_depth=ColorDepth.DEPTH_1_BIT if variables.get("NO_COLOR") else None,
        enable_open_in_editor=True,
    )
    return session.prompt


def history_file(variables: Mapping[str, str]) -> Path | None:
    """What was typed in earlier chats, which only this user can read; None where no file can be kept."""
    state = variables.get("XDG_STATE_HOME") or (f"{home}/.local/state" if (home := variables.get("HOME")) else None)
    if state is None:
        return None
    path = Path(state, "tgi", HISTORY)
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
        return path
    return None
