"""`tgi chat`: flags, which server, and whether one question is answered or a chat goes on.

Exit status 0; 1 when the server cannot be reached, does not start or refuses; 130 when a single answer was stopped.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tgi.commands.chat import parameters
from tgi.commands.chat.client import Server
from tgi.commands.chat.conversation import Conversation
from tgi.commands.chat.parameters import ParameterError
from tgi.commands.chat.screen import Screen
from tgi.commands.chat.server import find, is_address, started
from tgi.commands.chat.session import Session, prompt
from tgi.commands.chat.talk import answer
from tgi.commands.ending import show
from tgi.settings.parse import UsageError, options, parse, unknown

COMMAND = "tgi chat"
HELP = """\
Talk to a model in the terminal.

Usage: tgi chat [MODEL|URL] [QUESTION] [OPTIONS]

  tgi chat                              with a server of this machine that runs, else with the demo model
  tgi chat org/name                     with that model: a server of it that runs, else one that is started
  tgi chat http://127.0.0.1:8080        with this server, or another that speaks OpenAI's API
  tgi chat org/name "What is a pipe?"   one question, one answer
  cat file | tgi chat org/name "Summarise this"

A server that is started ends with the chat. Inside, /help shows the commands. Colours are off where the output is no
terminal or NO_COLOR is set.

Options:
  --system TEXT      System prompt
  --set NAME=VALUE   Parameter of the answers, such as temperature=0.7; may be repeated; /set lists them
  --load FILE        Go on with a conversation that /save wrote
  --api-key KEY      Key of the server [env: API_KEY]
  -h, --help         Print this text
  All other flags are those of `tgi serve`, for a server that is started: --quantize int8"""
OWN = ("--system", "--set", "--load", "--api-key")
NOT_PASSED = ("model_id", "port", "hostname")
"""Flags of `tgi serve` that a chat has no use for."""
LONGEST_INPUT = 64 << 20
"""Characters of standard input."""


@dataclass
class Wanted:
    """The command line, cut."""

    words: list[str] = field(default_factory=list)
    own: dict[str, str] = field(default_factory=dict)
    sets: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    """Of a server that is started."""


def chat(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """The exit status. Raises UsageError, ChatError."""
    if {"--help", "-h"} & set(words):
        show(HELP)
        return 0
    wanted = cut(words)
    target, question = (*wanted.words, None, None)[:2]
    conversation = _begin(wanted)
    if not sys.stdin.isatty():
        piped = sys.stdin.read(LONGEST_INPUT)
        question = f"{question}\n\n{piped}" if question and piped.strip() else question or piped
        if not question.strip():
            raise UsageError("there is no question: standard input is empty, and none is given")
    screen = Screen(variables)
    with _server(target, wanted, screen, variables) as url, _stoppable():
        server = Server(url, wanted.own.get("--api-key") or variables.get("API_KEY"))
        model = server.model()
        if question is None:
            return Session(server, model, conversation, screen).run(prompt(variables))
        conversation.ask(question)
        return 130 if answer(server, model, conversation, screen).finish is None else 0


def cut(words: Sequence[str]) -> Wanted:
    """Which words are the chat's own and which the server's. Raises UsageError."""
    known = {option.long: option for option in options() if option.name not in NOT_PASSED}
    known |= {option.flag.short: option for option in known.values() if option.flag.short}
    wanted, rest = Wanted(), list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word == "--":
            wanted.words += rest
            break
        if name in OWN:
            if not equals and not rest:
                raise UsageError(f"a value is required for '{name}' but none was supplied")
            text = value if equals else rest.pop(0)
            if name == "--set":
                wanted.sets.append(text)
            else:
                wanted.own[name] = text
        elif name in known:
            wanted.flags.append(word)
            if not equals and known[name].type is not bool and rest:
                wanted.flags.append(rest.pop(0))
        elif word.startswith("-") and len(word) > 1:
            if parameter := parameters.named(name.lstrip("-")):
                raise UsageError(f"unexpected argument '{word}' found: use --set {parameter}={value or 'VALUE'}")
            raise unknown(word, [*OWN, *known, "--help"])
        else:
            wanted.words.append(word)
    if len(wanted.words) > 2:
        raise UsageError(f"unexpected argument '{wanted.words[2]}' found: put the question in quotes")
    return wanted


def _begin(wanted: Wanted) -> Conversation:
    conversation = Conversation()
    if "--load" in wanted.own:
        conversation.load(wanted.own["--load"])
    if "--system" in wanted.own:
        conversation.system = wanted.own["--system"]
    for text in wanted.sets:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: NAME=VALUE is needed")
        try:
            name, value = parameters.read(name, value)
        except ParameterError as error:
            raise UsageError(f"--set {text}: {error}") from None
        conversation.values[name] = value
    return conversation


@contextlib.contextmanager
def _server(target: str | None, wanted: Wanted, screen: Screen, variables: Mapping[str, str]) -> Iterator[str]:
    """The address of the server that is meant, which is started if need be."""
    if target is not None and is_address(target):
        if wanted.flags:
            raise UsageError(f"{wanted.flags[0]} has no effect on {target}: it is for a server that is started")
        yield target
        return
    running = find(target, variables) if not wanted.flags else None
    if running is not None:
        yield running.url
        return
    words = [*([target] if target is not None else []), *wanted.flags]
    parse(words, variables, positional=True)  # what is wrong with them shows before anything starts
    with started(words, target or "the demo model", screen.progress, variables) as url:
        yield url


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Within the block Ctrl-C raises KeyboardInterrupt, each time anew: it ends an answer and not the chat."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
