"""What is deployed: the models of a command line or of deploy.yaml, checked, with what each replica takes.

Owns the form of deploy.yaml and what a replica is said to need. Nothing here imports Ray: all that can be wrong with
a deployment is found before a process is started.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tgi.errors import ArgumentError
from tgi.hardware import Hardware
from tgi.hub.known import with_full_name
from tgi.hub.prepare import DEMO_ID, prepare_plan
from tgi.memory.estimate import estimate
from tgi.ray.flags import DeployFlags, ModelFlags
from tgi.settings import config_file
from tgi.settings.parse import Option, UsageError, convert, options, parse, split, unknown
from tgi.settings.resolve import check_ranges
from tgi.untrusted import printable

OWN = options(ModelFlags)
WHOLE = options(DeployFlags)
OURS = {"hostname", "port", "api_key", "api_key_file", "config", "served_model_name", "ngrok", "ngrok_authtoken"}
"""Flags of `tgi serve` that a replica is given by the deployment."""
THEIRS = tuple(option for option in options() if option.name not in OURS)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
MOST_MODELS = 64
PLANNED_SHARE = 0.95
"""Of the memory that is available now: the rest is for Ray and the routers."""
RAY_BYTES = 1 << 30
"""Ray's own processes, where they run on this machine."""


class Served(msgspec.Struct, frozen=True):
    """One model as its replicas are started."""

    name: str
    words: tuple[str, ...]
    """Flags of `tgi serve`."""
    model_id: str
    revision: str | None = None
    replicas: int = 1
    least: int = 1
    most: int = 1
    cpus: int = 1
    gpus: int = 0
    memory: int = 0
    """Bytes of a replica by its memory plan."""
    target_queue: int = 4
    target_cache: float = 0.8
    scale_up_delay: float = 30.0
    scale_down_delay: float = 600.0
    keys: tuple[str, ...] = ()
    """API keys of the server."""

    @property
    def slug(self) -> str:
        """The name where a path or a process is named after it."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-.") or "model"


@dataclass(frozen=True)
class Wanted:
    """One model as the user asked for it: pairs of a flag and its text, and where they were found."""

    own: ModelFlags
    words: tuple[str, ...]


def of_command_line(words: Sequence[str], variables: Mapping[str, str]) -> tuple[DeployFlags, list[Wanted]]:
    """The deployment that a command line describes, with the file of its --config.

    Raises UsageError, ArgumentError.
    """
    known = (*WHOLE, *OWN, *THEIRS)
    pairs = split(words, known, "model_id")
    for option in WHOLE:
        if text := variables.get(option.env or "", ""):
            pairs.insert(0, (option, text))
    whole, model = [pair for pair in pairs if pair[0] in WHOLE], [pair for pair in pairs if pair[0] not in WHOLE]
    flags = _flags(DeployFlags, whole)
    if flags.config is None:
        if not any(option.name == "model_id" for option, _ in model):
            raise ArgumentError("which model? Give --model-id, such as `tgi-demo` for the bundled one, or --config")
        return flags, [_wanted(model)]
    if model:
        raise UsageError(f"{model[0][0].long} does not go with --config: say it of a model in {flags.config}")
    in_file, models = of_file(flags.config)
    return _flags(DeployFlags, [*in_file, *whole]), models


def of_file(name: str) -> tuple[list[tuple[Option, str]], list[Wanted]]:
    """What a deploy.yaml says of the whole, and its models. Raises UsageError, ArgumentError."""
    content = config_file.content(Path(name).expanduser())
    where = printable(name)
    if not isinstance(content, dict):
        raise ArgumentError(f"{where} must hold settings and a list `models`")
    models = content.pop("models", None)
    if not isinstance(models, list) or not models:
        raise ArgumentError(f"{where} names no model: write a list `models`, each with its `model-id`")
    if len(models) > MOST_MODELS:
        raise ArgumentError(f"{where} has {len(models)} models: {MOST_MODELS} at most")
    known = tuple(option for option in WHOLE if option.name not in ("config", "detach"))
    pairs = list(_pairs(content, known, where))
    return pairs, [of_mapping(one, f"{where}, model {number}") for number, one in enumerate(models, 1)]


def of_mapping(content: Any, where: str) -> Wanted:
    """One model of a file. Raises UsageError, ArgumentError."""
    if not isinstance(content, dict):
        raise ArgumentError(f"{where}: expected settings such as `model-id: org/name`")
    pairs = list(_pairs(content, (*OWN, *THEIRS), where))
    if not any(option.name == "model_id" for option, _ in pairs):
        raise ArgumentError(f"{where} has no `model-id`")
    return _wanted(pairs)


def _pairs(content: Mapping[Any, Any], known: Sequence[Option], where: str) -> Iterator[tuple[Option, str]]:
    by_name = {option.long: option for option in known}
    for key in content:
        if _long(key) not in by_name:
            tip = unknown(_long(key), list(by_name)).tip
            raise UsageError(
                f"{where}: `{printable(key)}` is no setting here",
                None if tip is None else tip.replace("argument", "name").replace("'--", "'"),
            )
    for key, texts in config_file.entries(content, where):
        option = by_name[_long(key)]
        if len(texts) != 1 and option.type is not tuple:
            raise UsageError(f"{where}: `{printable(key)}` can have one value only")
        yield from ((option, text) for text in texts)


def _long(key: Any) -> str:
    return "--" + str(key).replace("_", "-")


def _flags(kind: type, pairs: Sequence[tuple[Option, str]]) -> Any:
    """Raises UsageError, ArgumentError."""
    values: dict[str, Any] = {}
    for option, text in pairs:
        value = convert(option, text, option.long)
        values[option.name] = (*values.get(option.name, ()), *value) if option.type is tuple else value
    flags = kind(**values)
    check_ranges(flags)
    return flags


def _wanted(pairs: Sequence[tuple[Option, str]]) -> Wanted:
    own = _flags(ModelFlags, [pair for pair in pairs if pair[0] in OWN])
    return Wanted(own, tuple(f"{option.long}={text}" for option, text in pairs if option not in OWN))


def plan(
    wanted: Sequence[Wanted],
    variables: Mapping[str, str],
    facts: Hardware,
    *,
    keys: tuple[str, ...] = (),
    shared: bool = True,
) -> list[Served]:
    """What each replica takes, by the memory plan on this machine; shared: all of them run on it.

    Raises UsageError, StartupError.
    """
    replicas = max(sum(_scale(one.own)[2] for one in wanted), 1) if shared else 1
    cores = max(facts.cpu_count // replicas, 1)
    memory = int(max(facts.available_memory - RAY_BYTES, 0) * PLANNED_SHARE) // replicas
    served = [_planned(one, variables, facts, cores, memory, keys) for one in wanted]
    for names, what in (([one.name for one in served], "name"), ([one.slug for one in served], "name in paths")):
        for name in names:
            if names.count(name) > 1:
                raise ArgumentError(f"two models have the {what} `{name}`: give one of them another `served-name`")
    return served


def _planned(
    wanted: Wanted, variables: Mapping[str, str], facts: Hardware, cores: int, memory: int, keys: tuple[str, ...]
) -> Served:
    own = wanted.own
    least, start, most = _scale(own)
    parsed = parse(wanted.words, {})
    threads = own.cpus or parsed.config.threads or cores
    if own.cpus and parsed.config.threads and own.cpus != parsed.config.threads:
        raise ArgumentError(f"`cpus` {own.cpus} and `threads` {parsed.config.threads} contradict each other: give one")
    words = [*wanted.words, *(() if parsed.config.threads else (f"--threads={threads}",))]
    device = parsed.config.device or ("cuda" if facts.gpus else "cpu")
    gpus = own.gpus if own.gpus is not None else int(device.startswith("cuda"))
    if device == "cpu" and parsed.config.memory is None:
        words.append(f"--memory={memory}")
    if own.served_name:
        words.append(f"--served-model-name={own.served_name}")
    parsed = with_full_name(parse(words, {}))
    engine = prepare_plan(parsed, variables, facts)
    limits = estimate(engine, facts)
    needed = sum(row.bytes for row in limits.memory.rows if row.name != "left free")
    model_id = parsed.config.model_id or DEMO_ID
    return Served(
        name=own.served_name or model_id,
        words=tuple(words),
        model_id=model_id,
        revision=parsed.config.revision,
        replicas=start,
        least=least,
        most=most,
        cpus=threads,
        gpus=gpus,
        memory=needed if device == "cpu" else 0,
        target_queue=max(own.target_queue, 1),
        target_cache=own.target_cache,
        scale_up_delay=own.scale_up_delay,
        scale_down_delay=own.scale_down_delay,
        keys=keys,
    )


def _scale(own: ModelFlags) -> tuple[int, int, int]:
    """Fewest, first and most replicas. Raises ArgumentError."""
    least = own.replicas if own.min_replicas is None else own.min_replicas
    most = max(own.replicas, least, 1) if own.max_replicas is None else own.max_replicas
    if not least <= most or not most:
        raise ArgumentError(f"`min_replicas` {least} is more than `max_replicas` {most}" if most else "no replicas")
    return least, min(max(own.replicas, least), most), most


def of_arguments(arguments: Mapping[str, Any], variables: Mapping[str, str], facts: Hardware) -> Served:
    """The model of a Serve config file: an entry as in deploy.yaml, or what `tgi deploy` has planned."""
    if "planned" in arguments:
        return msgspec.convert(arguments["planned"], Served)
    texts = {key: value for key, value in arguments.items() if key not in ("router", "api-key")}
    keys = arguments.get("api-key", ())
    wanted = of_mapping(texts, "args")
    (served,) = plan([wanted], variables, facts, keys=(keys,) if isinstance(keys, str) else tuple(keys), shared=False)
    return served
