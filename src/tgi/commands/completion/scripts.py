"""The completions in the languages of bash, zsh and fish.

bash and zsh get one function of words in, candidates out, which both understand; zsh shows what each is about. fish
has a line for each flag.
"""

from __future__ import annotations

import re
import shlex

from tgi.commands.completion.tree import Command, Flag

HEAD = "# Completions of tgi, written by `tgi completion {shell}`.\n"

BASH = """\
{head}
_tgi_candidates() {{  # sets `words`, and in `kind` whether files or models can be there, too
    local command=$1 previous=$2
    words='' kind=''
    case "$command" in
{cases}
    esac
}}

_tgi_models='{models}'

_tgi() {{
    local words kind command='' current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} IFS=$' \n'
    COMPREPLY=()
    if [[ ${{COMP_WORDS[0]##*/}} == text-generation-launcher ]]; then
        command=launcher
    elif [[ $COMP_CWORD -gt 1 ]]; then
        command=${{COMP_WORDS[1]}}
    fi
    _tgi_candidates "$command" "$previous"
    if [[ $kind == models && $current != -* ]]; then
        words=$_tgi_models
    fi
    if [[ $kind == files || $kind == models ]]; then
        IFS=$'\n'
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -- "$current"))
    fi
    IFS=$' \n'
    COMPREPLY+=($(compgen -W "$words" -- "$current"))
}}
complete -F _tgi tgi text-generation-launcher
"""

ZSH = """\
#compdef tgi text-generation-launcher
{head}
_tgi_models=({models})

_tgi_command() {{
    local command=$1 previous=$2
    local -a found
    local kind=''
    case "$command" in
{cases}
    esac
    (( $#found )) && _describe tgi found
    [[ $kind == models ]] && compadd -a _tgi_models
    [[ $kind == files || $kind == models ]] && _files
    return 0
}}

_tgi() {{
    local command=''
    if [[ ${{words[1]:t}} == text-generation-launcher ]]; then
        command=launcher
    elif (( CURRENT > 2 )); then
        command=${{words[2]}}
    fi
    _tgi_command "$command" "${{words[CURRENT-1]}}"
}}
compdef _tgi tgi text-generation-launcher
"""


def bash(commands: tuple[Command, ...], launcher: tuple[Flag, ...], models: tuple[str, ...]) -> str:
    """For `eval "$(tgi completion bash)"`."""
    cases = [_case("''", [f"words={shlex.quote(' '.join(one.name for one in commands))}"])]
    for name, flags, words in _all(commands, launcher):
        lines = ['case "$previous" in']
        for flag in flags:
            if flag.takes:
                value = f"words={shlex.quote(' '.join(flag.choices))}" if flag.choices else ""
                kind = f"kind={flag.takes}"
                lines.append(f"    {_pattern(flag)}) {'; '.join(filter(None, (value, kind)))}; return ;;")
        lines += ["esac", f"words={shlex.quote(' '.join([*_names(flags), *(w for w in words if w != 'models')]))}"]
        if "models" in words:
            lines.append("kind=models")
        cases.append(_case(name, lines))
    return BASH.format(head=HEAD.format(shell="bash"), cases="\n".join(cases), models=" ".join(models))


def zsh(commands: tuple[Command, ...], launcher: tuple[Flag, ...], models: tuple[str, ...]) -> str:
    """For `eval "$(tgi completion zsh)"`, behind `compinit`."""
    cases = [_case("''", [_described([(one.name, one.about) for one in commands])])]
    for name, flags, words in _all(commands, launcher):
        lines = ['case "$previous" in']
        for flag in flags:
            if flag.takes:
                value = f"found=({' '.join(flag.choices)}); " if flag.choices else ""
                lines.append(f"    {_pattern(flag)}) {value}kind={flag.takes} ;;")
        described = [(one, flag.about) for flag in flags for one in filter(None, (flag.name, flag.short))]
        described += [(word, "") for word in words if word != "models"]
        lines += ["    *)", f"        {_described(described)}"]
        if "models" in words:
            lines.append("        [[ ${words[CURRENT]} == -* ]] || kind=models")
        cases.append(_case(name, [*lines, "    ;;", "esac"]))
    return ZSH.format(head=HEAD.format(shell="zsh"), cases="\n".join(cases), models=" ".join(models))


def fish(commands: tuple[Command, ...], launcher: tuple[Flag, ...], models: tuple[str, ...]) -> str:
    """For `tgi completion fish | source`."""
    lines = [HEAD.format(shell="fish"), "complete -c tgi -f"]
    for one in commands:
        lines.append(f"complete -c tgi -n __fish_use_subcommand -a {one.name} -d {shlex.quote(one.about)}")
    for name, flags, words in _all(commands, launcher):
        start = "complete -c text-generation-launcher"
        if name != "launcher":
            start = f"complete -c tgi -n '__fish_seen_subcommand_from {name}'"
        lines += [f"{start} {_fish_flag(flag, models)}" for flag in flags]
        plain = [word for word in words if word != "models"]
        if plain:
            lines.append(f"{start} -a {shlex.quote(' '.join(plain))}")
        if "models" in words:
            lines += [f"{start} -F", f"{start} -a {shlex.quote(' '.join(models))} -d model"]
    return "\n".join(lines) + "\n"


def _all(
    commands: tuple[Command, ...], launcher: tuple[Flag, ...]
) -> list[tuple[str, tuple[Flag, ...], tuple[str, ...]]]:
    return [(one.name, one.flags, one.words) for one in commands] + [("launcher", launcher, ())]


def _case(name: str, lines: list[str]) -> str:
    return "\n".join([f"        {name})", *(f"            {line}" for line in lines), "            ;;"])


def _names(flags: tuple[Flag, ...]) -> list[str]:
    return [name for flag in flags for name in (flag.name, flag.short) if name]


def _pattern(flag: Flag) -> str:
    return "|".join(filter(None, (flag.name, flag.short)))


def _described(rows: list[tuple[str, str]]) -> str:
    """zsh's `found=(name:about ...)`."""
    return f"found=({' '.join(shlex.quote(f'{name}:{_first(about)}' if about else name) for name, about in rows)})"


def _fish_flag(flag: Flag, models: tuple[str, ...]) -> str:
    parts = [f"-l {flag.name[2:]}"]
    if flag.short:
        parts.append(f"-s {flag.short[1:]}")
    if flag.takes == "files":
        parts.append("-r -F")
    elif flag.takes:
        values = flag.choices or (models if flag.takes == "models" else ())
        parts.append("-x" + (f" -a {shlex.quote(' '.join(values))}" if values else ""))
    if flag.about:
        parts.append(f"-d {shlex.quote(_first(flag.about))}")
    return " ".join(parts)


def _first(about: str) -> str:
    """The beginning of a description, on one line, short enough for a list."""
    plain = re.split(r"[;:,] ", about.replace("`", "").replace("\n", " "))[0]
    return plain[:70]
