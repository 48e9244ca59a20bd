"""`tgi completion bash|zsh|fish`: prints the completions of a shell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tgi.commands.completion import scripts, tree
from tgi.commands.ending import show
from tgi.commands.simple_flags import simple_flags
from tgi.hub.known import KNOWN
from tgi.settings.parse import UsageError, unknown

HELP = """\
Print what a shell needs to complete the commands, their flags and their values.

Usage: tgi completion SHELL

  bash   eval "$(tgi completion bash)"     in ~/.bashrc
  zsh    eval "$(tgi completion zsh)"      in ~/.zshrc, behind compinit
  fish   tgi completion fish | source      in ~/.config/fish/config.fish

Options:
  -h, --help     Print this text"""
SHELLS = {"bash": scripts.bash, "zsh": scripts.zsh, "fish": scripts.fish}


def completion(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """Exit status 0. Raises UsageError."""
    flags = simple_flags(words, HELP, most_words=1)
    if flags is None:
        return 0
    if not flags.words:
        raise UsageError(f"a shell is needed: {', '.join(SHELLS)}")
    if flags.words[0] not in SHELLS:
        raise unknown(flags.words[0], list(SHELLS))
    show(SHELLS[flags.words[0]](tree.commands(), tree.launcher(), tuple(KNOWN)).rstrip("\n"))
    return 0
