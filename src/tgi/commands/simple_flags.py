"""Words of commands that have a few switches and values of their own and none of the launcher's flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import tgi
from tgi.commands.ending import show
from tgi.settings.parse import UsageError, unknown


@dataclass(frozen=True)
class SimpleFlags:
    """A command line, cut."""

    given: frozenset[str] = frozenset()
    """Switches that were given, by their long names."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Flags with a value."""
    words: tuple[str, ...] = ()
    """What is no flag, in its order."""


def simple_flags(
    words: Sequence[str],
    help_text: str,
    *,
    switches: Sequence[str] = (),
    values: Sequence[str] = (),
    short: Mapping[str, str] | None = None,
    most_words: int = 0,
) -> SimpleFlags | None:
    """Cut a command line; None when it asked for help or the version, which were printed.

    `short`: one-letter names -> long ones; `most_words`: how many words may come that are no flags; those behind `--`
    are none. Raises UsageError.
    """
    begin = list(words).index("--") if "--" in words else len(words)
    if {"--help", "-h"} & set(words[:begin]):
        show(help_text)
        return None
    if {"--version", "-V"} & set(words[:begin]):
        show(f"tgi {tgi.__version__}")
        return None
    rest, plain = list(words[:begin]), list[str]()
    given, found = set[str](), dict[str, str]()
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        name = (short or {}).get(name, name)
        if name in switches and not equals:
            given.add(name)
        elif name in values:
            if not equals and not rest:
                raise UsageError(f"a value is required for '{name}' but none was supplied")
            found[name] = value if equals else rest.pop(0)
        elif word.startswith("-") and len(word) > 1:
            raise unknown(word, [*switches, *values, "--help", "--version"])
        else:
            plain.append(word)
    plain += words[begin + 1 :]
    if len(plain) > most_words:
        raise UsageError(f"unexpected argument '{plain[most_words]}' found")
    return SimpleFlags(frozenset(given), found, tuple(plain))
