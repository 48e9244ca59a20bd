"""Renders the flags for people: `--help`, and the pages in docs/ that come from the same table.

Knows nothing of parsing or of what the flags do.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tgi.settings.flags import GROUPS, Bytes
from tgi.settings.parse import Option, options

INDENT = 30
ENVIRONMENT = (
    "Every flag can also be given as an environment variable: its name in upper case with underscores "
    "(--max-total-tokens: MAX_TOTAL_TOKENS), unless another one is named. The command line wins. "
    "Switches take true or false there."
)
_TYPES = {int: "whole number", float: "number", str: "text", Bytes: "amount of memory", tuple: "text, repeatable"}


def render(
    command: str,
    about: str,
    examples: str,
    defaults: Mapping[str, Any] | None = None,
    known: Sequence[Option] | None = None,
    environment: str = ENVIRONMENT,
) -> str:
    """The text of `--help`: what the command is, examples, and the flags by group.

    `known`: flags other than the launcher's; `environment`: what to say of environment variables.
    """
    known = options() if known is None else known
    width = min(shutil.get_terminal_size().columns, 110)
    lines = [about, "", f"Usage: {command} [OPTIONS]", "", textwrap.indent(textwrap.dedent(examples).strip(), "  "), ""]
    lines += textwrap.wrap(environment, width)
    for group in dict.fromkeys(option.flag.group for option in known):
        lines += ["", _bold(group)]
        for option in known:
            if option.flag.group == group:
                lines += _describe(option, (defaults or {}).get(option.name, option.default), width)
    lines += ["", _bold("Other")]
    lines += _entry("  -h, --help", "Print this text", width)
    lines += _entry("  -V, --version", "Print the version", width)
    return "\n".join(lines)


def default_text(option: Option, default: Any) -> str | None:
    """How help and documentation name a default; None for a switch or where there is nothing to say."""
    if option.type is bool:
        return "on" if default else option.flag.shown_default
    if default is None or default == ():
        return option.flag.shown_default
    return str(default)


def markdown(friendly: Mapping[str, Any]) -> str:
    """The table of flags in docs/flags.md. `friendly`: the defaults that `tgi serve` has of its own."""
    lines = []
    for group in GROUPS:
        lines += [
            "",
            f"## {group}",
            "",
            "| flag | environment | type | default | meaning |",
            "| --- | --- | --- | --- | --- |",
        ]
        for option in options():
            if option.flag.group != group:
                continue
            names = ", ".join(f"`{name}`" for name in (option.flag.short, option.long) if name)
            env = f"`{option.env}`" if option.env else "-"
            if option.flag.choices:
                kind = ", ".join(f"`{choice}`" for choice in option.flag.choices)
            else:
                kind = "switch" if option.type is bool else _TYPES[option.type]
                if option.flag.within is not None:
                    kind += f", {option.flag.within.text(as_bytes=option.type is Bytes)}"
            default = default_text(option, option.default) or ("off" if option.type is bool else "-")
            if option.name in friendly:
                default += f"; `tgi serve`: {default_text(option, friendly[option.name])}"
            lines.append(f"| {names} | {env} | {kind} | {default} | {_meaning(option)} |")
    return "\n".join(lines).strip() + "\n"


def _meaning(option: Option) -> str:
    if option.flag.no_effect:
        return option.flag.no_effect[0].upper() + option.flag.no_effect[1:]
    if option.flag.no_effect_on_cpu:
        return f"{option.flag.help}; on a CPU no effect: {option.flag.no_effect_on_cpu}"
    return option.flag.help


def _describe(option: Option, default: Any, width: int) -> list[str]:
    head = f"  {option.flag.short}, {option.long}" if option.flag.short else f"      {option.long}"
    if option.type is not bool:
        head += f" {option.metavar}"
    text = _meaning(option)
    if option.flag.choices:
        text += f" [one of: {', '.join(option.flag.choices)}]"
    shown = default_text(option, default)
    if shown is not None:
        text += f" [default: {shown}]"
    if option.env and option.env != option.name.upper():
        text += f" [env: {option.env}]"
    return _entry(head, text, width)


def _entry(head: str, text: str, width: int) -> list[str]:
    body = textwrap.wrap(text, max(30, width - INDENT), break_on_hyphens=False)
    indented = [" " * INDENT + line for line in body]
    if len(head) < INDENT - 1:
        return [head.ljust(INDENT) + body[0], *indented[1:]]
    return [head, *indented]


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() else text
