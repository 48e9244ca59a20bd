"""`tgi deploy`: models on Ray Serve behind one address; `tgi deploy status` and `tgi deploy down`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import tgi
from tgi import hardware, logs
from tgi.commands.deploy import background, foreground
from tgi.commands.ending import show
from tgi.errors import ArgumentError
from tgi.ray import cluster
from tgi.ray.flags import DeployFlags
from tgi.ray.served import NAME, OWN, WHOLE, Served, Wanted, of_command_line, plan
from tgi.settings.api_keys import read_keys
from tgi.settings.config import environment_settings
from tgi.settings.help import render

logger = logging.getLogger("tgi.ray")

ABOUT = (
    "Serve models on Ray Serve: replicas behind one address, each request where its prompt is cached. Takes all flags "
    "of `tgi serve` for the replicas of a model."
)
EXAMPLES = """\
tgi deploy --model-id org/name --replicas 2
tgi deploy --config deploy.yaml --detach
tgi deploy status
tgi deploy down"""
ENVIRONMENT = "Flags of models are taken from the command line or from the file alone, not from the environment."


def deploy(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """Exit status. Raises UsageError and StartupError."""
    if words and words[0] in background.COMMANDS:
        return background.COMMANDS[words[0]](words[1:], variables)
    if "--help" in words or "-h" in words:
        show(render("tgi deploy", ABOUT, EXAMPLES, known=(*WHOLE, *OWN), environment=ENVIRONMENT))
        return 0
    if "--version" in words or "-V" in words:
        show(f"tgi {tgi.__version__}")
        return 0
    flags, wanted = of_command_line(words, variables)
    keys = keys_of(flags)
    settings = environment_settings(variables)
    logs.configure(settings.log_level, json_output=False, color=settings.color, secrets=(*keys, flags.salt))
    if not NAME.fullmatch(flags.name):
        raise ArgumentError(f"`name` {flags.name!r}: letters, digits, `.`, `_` and `-`, 63 at most")
    cluster.check(flags)
    served = planned(flags, wanted, variables, keys)
    if flags.detach:
        return background.detach(words, flags, variables)
    if not keys and flags.hostname not in ("127.0.0.1", "::1"):
        logger.warning("Listening on %s without --api-key: whoever reaches this port can use it", flags.hostname)

    def again() -> list[Served]:
        new, models = of_command_line(words, variables)
        return planned(new, models, variables, keys)

    return foreground.run(flags, served, keys, variables, again if flags.config is not None else None)


def planned(
    flags: DeployFlags, wanted: Sequence[Wanted], variables: Mapping[str, str], keys: tuple[str, ...]
) -> list[Served]:
    """Raises UsageError, StartupError."""
    facts = hardware.detect()
    return plan(wanted, variables, facts, keys=keys, shared=flags.ray_address is None)


def keys_of(flags: DeployFlags) -> tuple[str, ...]:
    """Raises ArgumentError."""
    keys = (*flags.api_key, *(read_keys(Path(flags.api_key_file)) if flags.api_key_file is not None else ()))
    if any(not key.strip() for key in keys):
        raise ArgumentError("`api_key` cannot be empty")
    return keys
