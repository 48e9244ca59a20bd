"""The commands of a chat: lines that begin with a slash.

Each gets the rest of its line and the session. Owns their names, help and what they answer; Ctrl-C and lines that are
no commands are `session`'s.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tgi.commands.chat import parameters
from tgi.commands.chat.conversation import ConversationError
from tgi.commands.chat.parameters import ParameterError
from tgi.commands.columns import columns

if TYPE_CHECKING:
    from tgi.commands.chat.session import Session


class Quit(Exception):
    """The chat is over."""


@dataclass(frozen=True)
class Slash:
    """One command."""

    arguments: str
    about: str
    run: Callable[[Session, str], None]


def run(session: Session, line: str) -> None:
    """Do what a line says. Raises Quit; mistakes are told."""
    name, _, rest = line[1:].strip().partition(" ")
    name = SYNONYMS.get(name, name)
    command = COMMANDS.get(name)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, 1, 0.6)
        session.screen.error(f"there is no command /{name}: {f'did you mean /{near[0]}?' if near else 'see /help'}")
        return
    try:
        command.run(session, rest.strip())
    except (ParameterError, ConversationError) as error:
        session.screen.error(str(error))


def _help(session: Session, rest: str) -> None:
    rows = [(f"/{name} {one.arguments}".strip(), one.about) for name, one in COMMANDS.items()]
    lines = columns(("", ""), rows).splitlines()[1:]
    session.screen.note("\n".join([*lines, "", *KEYS]))


def _set(session: Session, rest: str) -> None:
    if not rest:
        rows = parameters.listed(session.conversation.values)
        session.screen.note(columns(("PARAMETER", "VALUE", "WHAT IT CAN BE"), rows))
        return
    name, _, text = rest.partition("=" if "=" in rest.split()[0] else " ")
    if not text.strip():
        raise ParameterError(f"/set {name.strip()} needs a value")
    name, value = parameters.read(name, text.strip())
    session.conversation.values[name] = value
    session.screen.note(f"{name} is {value}")


def _unset(session: Session, rest: str) -> None:
    if not rest:
        session.conversation.values.clear()
        session.screen.note("all parameters are the server's")
    elif session.conversation.values.pop(rest.replace("-", "_"), None) is None:
        raise ParameterError(f"{rest} is not set")
    else:
        session.screen.note(f"{rest} is the server's")


def _system(session: Session, rest: str) -> None:
    if rest in ('""', "''", "none"):
        session.conversation.system = None
        session.screen.note("there is no system prompt")
    elif rest:
        session.conversation.system = rest
        session.screen.note("the system prompt is set")
    else:
        session.screen.note(session.conversation.system or "there is no system prompt; /system TEXT sets one")


def _save(session: Session, rest: str) -> None:
    if not rest:
        raise ConversationError("/save needs the name of a file")
    session.screen.note(f"saved in {session.conversation.save(rest, session.model)}")


def _load(session: Session, rest: str) -> None:
    if not rest:
        raise ConversationError("/load needs the name of a file")
    session.conversation.load(rest)
    session.screen.note(f"{len(session.conversation.messages)} messages")
    session.show_last()


def _retry(session: Session, rest: str) -> None:
    if not session.conversation.forget_answer():
        raise ConversationError("there is no question to answer again")
    session.answer()


def _undo(session: Session, rest: str) -> None:
    if not session.conversation.undo():
        raise ConversationError("there is nothing to take back")
    session.screen.note("the last question and its answer are taken back")


def _clear(session: Session, rest: str) -> None:
    session.conversation.clear()
    session.screen.note("a new conversation; system prompt and parameters stay")


def _quit(session: Session, rest: str) -> None:
    raise Quit


COMMANDS = {
    "set": Slash("[NAME VALUE]", "set a parameter, or show all with their limits", _set),
    "unset": Slash("[NAME]", "leave a parameter, or all, to the server", _unset),
    "system": Slash("[TEXT]", 'set the system prompt, "" for none, or show it', _system),
    "retry": Slash("", "answer the last question again", _retry),
    "undo": Slash("", "take back the last question and its answer", _undo),
    "clear": Slash("", "begin a new conversation", _clear),
    "save": Slash("FILE", "write the conversation to a file", _save),
    "load": Slash("FILE", "go on with a conversation from a file", _load),
    "help": Slash("", "show this list", _help),
    "quit": Slash("", "end the chat", _quit),
}
SYNONYMS = {"exit": "quit", "bye": "quit", "q": "quit", "?": "help", "h": "help", "new": "clear"}
KEYS = (
    "Enter sends; Alt-Enter or Ctrl-J begins a new line, as does Enter behind a \\; what is pasted stays whole.",
    "Ctrl-C stops an answer and keeps the part; Ctrl-D ends the chat; // begins a text that begins with a slash.",
)
