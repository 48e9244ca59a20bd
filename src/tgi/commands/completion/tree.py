"""What can be typed: the commands, their flags, and what a flag's value can be.

Read off the dataclasses of flags that the commands parse with, and, of those that have only a few switches, off their
help. Shells' own languages are `scripts`' affair.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tgi.settings.parse import Option, options

FILES = (
    "--huggingface-hub-cache", "--tokenizer-config-path", "--chat-template", "--calibration", "--api-key-file",
    "--config", "--weights-cache-override", "--load", "--json", "--plot", "--peers", "--output",
)  # fmt: skip
"""Flags whose value is a file or a directory, where they take one."""
MODELS = ("--model-id",)
TAKES_MODEL = (
    "serve",
    "chat",
    "plan",
    "pull",
    "show",
    "rm",
    "inspect",
    "quantize",
    "quantize-report",
    "download-weights",
)
"""Commands with a model's name among their words."""


@dataclass(frozen=True)
class Flag:
    """One flag of a command."""

    name: str
    short: str | None = None
    takes: str = ""
    """`files`, `models`, `choices`, `value`, or empty for a switch."""
    choices: tuple[str, ...] = ()
    about: str = ""


@dataclass(frozen=True)
class Command:
    """A command of `tgi`."""

    name: str
    about: str
    flags: tuple[Flag, ...]
    words: tuple[str, ...] = ()
    """What its first word can be; with `models` among them also the names of models."""


def commands() -> tuple[Command, ...]:
    """All of them, in the order of `tgi --help`."""
    from tgi.commands.cli import TGI_HELP

    found = re.findall(r"^  ([a-z][a-z-]+)\s+(\S.*)$", TGI_HELP, re.MULTILINE)
    return tuple(Command(name, about, _flags(name), _words(name)) for name, about in found)


def launcher() -> tuple[Flag, ...]:
    """Flags of `text-generation-launcher`."""
    return (*map(_of_option, options()), *HELP_FLAGS)


HELP_FLAGS = (Flag("--help", "-h", about="Print help"), Flag("--version", "-V", about="Print the version"))


def _words(name: str) -> tuple[str, ...]:
    if name == "completion":
        return ("bash", "zsh", "fish")
    if name == "deploy":
        return ("status", "down")
    return ("models",) if name in TAKES_MODEL else ()


def _flags(name: str) -> tuple[Flag, ...]:
    """Those of a command; the modules that declare them are imported for this alone."""
    known: Sequence[Option] = ()
    text = ""
    if name in ("serve", "plan", "pull", "download-weights"):
        known = options()
    elif name == "bench":
        from tgi.commands.bench_flags import BenchFlags

        known = options(BenchFlags)
    elif name == "route":
        from tgi.commands.route_flags import RouteFlags

        known = options(RouteFlags)
    elif name == "deploy":
        from tgi.ray.served import OWN, THEIRS, WHOLE

        known = (*WHOLE, *OWN, *THEIRS)
    elif name == "verify-determinism":
        from tgi.commands.verify import VerifyFlags

        known = (*options(VerifyFlags), *options())
    elif name == "quantize":
        from tgi.commands.quantize import QuantizeFlags

        known = options(QuantizeFlags)
    elif name == "quantize-report":
        from tgi.commands.quantize_report import ReportFlags

        known = options(ReportFlags)
    else:
        text, known = _help_of(name)
    found = {flag.name: flag for flag in (*_of_help(text), *map(_of_option, known), *HELP_FLAGS)}
    if name == "plan":
        found["--json"] = Flag("--json", about="Print the plan as JSON")
    return tuple(found.values())


def _help_of(name: str) -> tuple[str, Sequence[Option]]:
    """The help of a command, and what it takes of the launcher's flags."""
    from tgi.commands import models, ps
    from tgi.commands.chat import command as chat
    from tgi.commands.doctor import command as doctor
    from tgi.commands.inspect import command as inspection

    texts = {"chat": chat.HELP, "inspect": inspection.HELP, "doctor": doctor.DOCTOR_HELP, "ps": ps.HELP}
    texts |= {"list": models.LIST_HELP, "show": models.SHOW_HELP, "rm": models.RM_HELP}
    own = () if name not in ("chat", "inspect") else options()
    return texts.get(name, ""), [one for one in own if name != "chat" or one.name not in chat.NOT_PASSED]


def _of_help(text: str) -> list[Flag]:
    """Flags of the lines of a help text that begin with one: `  -y, --yes      Do not ask`."""
    lines = re.findall(r"^  (?:(-\w), )?(--[a-z-]+)(?: ([A-Z=]+))?(?:\s{2,}(\S.*))?$", text, re.MULTILINE)
    return [Flag(name, short or None, _kind(name) if value else "", about=about) for short, name, value, about in lines]


def _of_option(option: Option) -> Flag:
    about = option.flag.no_effect or option.flag.help
    takes = "choices" if option.flag.choices else "" if option.type is bool else _kind(option.long)
    return Flag(option.long, option.flag.short, takes, option.flag.choices, about)


def _kind(name: str) -> str:
    return "models" if name in MODELS else "files" if name in FILES else "value"
