"""The commands: `tgi`, `text-generation-launcher`, `text-generation-server`, `text-generation-benchmark`.

Owns the sub-commands and their flags. Exit statuses and how an error looks are `ending`'s.
"""

from __future__ import annotations

import importlib
import logging
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

import tgi
from tgi import hardware, logs
from tgi.commands.ending import command, guarded, show
from tgi.errors import DownloadError
from tgi.settings.api_keys import with_keys_of_file
from tgi.settings.config import environment_settings, read_environment, switch
from tgi.settings.foreign import COMMANDS
from tgi.settings.help import render
from tgi.settings.parse import Parsed, check_switches, options, parse, unknown

logger = logging.getLogger(__name__)

FRIENDLY = {
    "hostname": "127.0.0.1",
    "port": 8080,
    "max_client_batch_size": 64,
    "max_stop_sequences": 16,
    "max_top_n_tokens": 20,
    "default_max_new_tokens": 1024,
    "raw_logprobs": True,
    "max_queue": 1024,
}
"""Defaults of `tgi serve`, where they differ from TGI's."""

OTHERS = {
    "chat": "chat.command:chat",
    "inspect": "inspect.command:inspect",
    "list": "models:list_models",
    "show": "models:show",
    "rm": "models:rm",
    "ps": "ps:ps",
    "completion": "completion.command:completion",
    "route": "route:route",
    "deploy": "deploy.command:deploy",
    "quantize-report": "quantize_report:quantize_report",
    "bench": "bench:bench",
    "doctor": "doctor.command:doctor",
    "verify-determinism": "verify:verify",
}
"""Commands of `tgi` with flags of their own -> module below this package, imported for them alone, and function."""

TGI_HELP = """\
Text generation inference: serve a language model over HTTP.

Usage: tgi COMMAND [OPTIONS]

Commands:
  serve             Serve a model on http://127.0.0.1:8080 (without a model: the bundled demo model)
  chat              Talk to a model in the terminal
  plan              Show where the memory would go, without loading the model
  pull              Fetch a model from the hub; the same as download-weights
  list              List the models on this disk, or with --known those with short names
  show              Show what is known of a model on this disk, or of one with a short name
  rm                Remove a model from this disk
  ps                List the servers that run on this machine, and how busy they are
  inspect           Show what a checkpoint is, how it would be computed, and what stands in the way
  download-weights  Fetch a model from the hub, and convert its weights if need be
  quantize          Write a quantised checkpoint of a model
  quantize-report   Show what each format of the weights costs and gives
  route             One address in front of several servers, which knows what each of them has cached
  deploy            Replicas of models on Ray Serve, behind one address
  bench             Measure a running server, ours or one that speaks OpenAI's API
  doctor            Show what this machine has for serving, and what each part is worth
  completion        Print what bash, zsh or fish need to complete these commands
  verify-determinism
                    Prove that answers do not depend on the batch, on chunks, on cache hits or on threads

`tgi COMMAND --help` says more."""

SERVER_HELP = """\
TGI's server command; ranks and sockets are arranged behind it.

Usage: text-generation-server COMMAND MODEL_ID [OPTIONS]

Commands:
  serve             Serve a model; takes the flags of text-generation-launcher
  download-weights  Fetch a model from the hub, and convert its weights if need be
  quantize          Write a quantised checkpoint of a model

Options of all: --revision, --logger-level, --json-output, --trust-remote-code."""

DOWNLOAD_HELP = """\
Fetch a model from the hub into the cache, and convert its weights if need be.

Usage: {command} MODEL_ID [OPTIONS]

What cannot be served is refused before its weights are fetched, by its config.json; this machine's memory does not
count, since the model may be served elsewhere.

Options: --revision, --huggingface-hub-cache, --json-output, --trust-remote-code."""

SERVE_EXAMPLES = """\
{command} --model-id ./my-model
{command} --model-id HuggingFaceTB/SmolLM2-135M-Instruct --port 9000
{command} --model-id org/name --revision refs/pr/1 --dtype float32 --memory 8GiB"""

FRIENDLY_EXAMPLES = """\
tgi serve ./my-model
tgi serve HuggingFaceTB/SmolLM2-135M-Instruct --port 9000
tgi serve org/name --revision refs/pr/1 --dtype float32 --memory 8GiB"""

PLAN_EXAMPLES = """\
tgi plan org/name
tgi plan --model-id org/name --memory 24GiB --device cuda --json"""


@dataclass(frozen=True)
class Command:
    """A command that takes the launcher's flags."""

    name: str
    about: str
    examples: str
    defaults: Mapping[str, Any]
    run: Callable[[Parsed, Mapping[str, str], bool], int]
    """Flags, environment, `--json`."""
    like_tgi: bool = False
    """Print errors in the form of TGI's launcher."""
    positional: bool = False
    """The model may be given without --model-id."""


@command
def main(words: Sequence[str]) -> int:
    """The command `tgi`."""
    commands = {
        "serve": Command("tgi serve", "Serve a model over HTTP.", FRIENDLY_EXAMPLES, FRIENDLY, _serve, positional=True),
        "plan": Command("tgi plan", "Show where the memory would go.", PLAN_EXAMPLES, {}, _plan, positional=True),
    }
    name = words[0] if words else "--help"
    if name in commands:
        return run(commands[name], words[1:])
    if name in OTHERS:
        return guarded(f"tgi {name}", False, lambda: _other_command(name)(words[1:], read_environment()))
    if name in ("pull", "download-weights"):
        return guarded(f"tgi {name}", False, lambda: _download_weights(f"tgi {name}", words[1:]))
    if name == "quantize":
        return guarded("tgi quantize", False, lambda: _quantize("tgi", words[1:]))
    return _other("tgi", TGI_HELP, name, [*commands, "pull", "download-weights", "quantize", *OTHERS])


@command
def launcher_main(words: Sequence[str]) -> int:
    """The command `text-generation-launcher`."""
    name = "text-generation-launcher"
    examples = SERVE_EXAMPLES.format(command=name)
    return run(Command(name, "Serve a model over HTTP.", examples, {}, _launch, like_tgi=True), words)


@command
def server_main(words: Sequence[str]) -> int:
    """The command `text-generation-server`."""
    name = words[0] if words else "--help"
    if name == "download-weights":
        return guarded(
            "text-generation-server", True, lambda: _download_weights(f"text-generation-server {name}", words[1:])
        )
    if name == "serve":
        serve = Command("text-generation-server serve", "Serve a model over HTTP.", "", {}, _launch, like_tgi=True)
        return guarded(serve.name, True, lambda: run(serve, _launcher_words(words[1:])))
    if name == "quantize":
        return guarded("text-generation-server quantize", True, lambda: _quantize("text-generation-server", words[1:]))
    return _other("text-generation-server", SERVER_HELP, name, ["serve", "download-weights", "quantize"])


@command
def benchmark_main(words: Sequence[str]) -> int:
    """The command `text-generation-benchmark`."""
    from tgi.commands import benchmark

    return guarded(benchmark.BENCHMARK, False, lambda: benchmark.benchmark(words, read_environment()))


def run(command: Command, words: Sequence[str]) -> int:
    """Parse the flags of a command and run it; gives the exit status."""
    if "--help" in words or "-h" in words:
        words = f"{command.name} [MODEL]" if command.positional else command.name
        show(render(words, command.about, command.examples, command.defaults))
        return 0
    if "--version" in words or "-V" in words:
        print(f"{command.name.split()[0]} {tgi.__version__}")
        return 0

    def parse_and_run() -> int:
        as_json = command.run is _plan and "--json" in words
        flags = [word for word in words if not (as_json and word == "--json")]
        variables = read_environment()
        parsed = with_keys_of_file(parse(flags, variables, command.defaults, positional=command.positional))
        _configure_logs(parsed, variables, quiet=command.run is _plan)
        for warning in parsed.warnings:
            logger.warning(warning)
        return command.run(parsed, variables, as_json)

    return guarded(command.name, command.like_tgi, parse_and_run)


def _other(command: str, text: str, name: str, names: Sequence[str]) -> int:
    if name in ("--help", "-h", "help"):
        print(text)
        return 0
    if name in ("--version", "-V"):
        print(f"{command} {tgi.__version__}")
        return 0
    ours = COMMANDS.get(name)
    advice = f"what others call {name} is {ours} here" if ours in names else unknown(name, names).tip
    tip = f"\n\n  tip: {advice}" if advice else ""
    print(
        f"error: unrecognized command '{name}'{tip}\n\nFor more information, try '{command} --help'.", file=sys.stderr
    )
    return 2


def _other_command(name: str) -> Callable[[Sequence[str], Mapping[str, str]], int]:
    module, _, function = OTHERS[name].partition(":")
    return getattr(importlib.import_module(f"tgi.commands.{module}"), function)


def _configure_logs(parsed: Parsed, variables: Mapping[str, str], *, quiet: bool = False) -> None:
    settings = environment_settings(variables)
    config = parsed.config
    logs.configure(
        "warn" if quiet and "LOG_LEVEL" not in variables else settings.log_level,
        json_output=config.json_output,
        color=settings.color,
        secrets=(*config.api_key, settings.hf_token, config.ngrok_authtoken),
        stream=sys.stderr if quiet else sys.stdout,
    )


def _serve(parsed: Parsed, variables: Mapping[str, str], as_json: bool) -> int:
    from tgi.hub.prepare import prepare_parsed
    from tgi.launcher import supervisor  # the other commands need no HTTP stack

    facts = hardware.detect()
    _say_start(parsed, facts)
    api, engine = prepare_parsed(parsed, variables, facts)
    if engine.threads is not None and engine.threads > facts.cpu_count:
        logger.warning("--threads %d: only %d cores can be used, so it is slower", engine.threads, facts.cpu_count)
    for flag, why in api.ineffective_flags.items():
        logger.warning("%s has no effect: %s", flag, why)
    if api.default_max_new_tokens is not None:
        logger.info(
            "A request that does not say how many tokens it wants gets at most %d; --default-max-new-tokens sets this",
            api.default_max_new_tokens,
        )
    if not api.api_keys and api.hostname not in ("127.0.0.1", "::1"):
        logger.warning("Listening on %s without --api-key: whoever reaches this port can use the server", api.hostname)
    return supervisor.serve(api, engine, variables)


def _launch(parsed: Parsed, variables: Mapping[str, str], as_json: bool) -> int:
    """As `_serve`, with TGI's line when the download fails; why is said once, at the end."""
    try:
        return _serve(parsed, variables, as_json)
    except DownloadError:
        logger.error("Download encountered an error")
        raise


def _plan(parsed: Parsed, variables: Mapping[str, str], as_json: bool) -> int:
    from tgi.hub.prepare import prepare_plan
    from tgi.memory.estimate import estimate, survey
    from tgi.memory.table import render

    facts = hardware.detect()
    engine = prepare_plan(parsed, variables, facts)
    limits = estimate(engine, facts, survey(engine, facts, warn=True))
    if as_json:
        show(msgspec.json.format(msgspec.json.encode(limits)).decode())
    else:
        show(render(limits.memory, limits))
    return 0


def _download_weights(command: str, words: Sequence[str]) -> int:
    """`download-weights MODEL_ID`: TGI's arguments; those about format and LoRA have no effect."""
    from tgi.hub.known import with_full_name
    from tgi.hub.prepare import hub_of, model_files, suitability

    if not words or "--help" in words or "-h" in words:
        print(DOWNLOAD_HELP.format(command=command))
        return 0 if words else 2
    variables = read_environment()
    check_switches(variables)
    parsed = parse(_launcher_words(words), {})
    cache = parsed.config.huggingface_hub_cache or variables.get("HUGGINGFACE_HUB_CACHE") or None
    _configure_logs(parsed, variables)
    settings = environment_settings(variables)
    parsed = with_full_name(parsed)
    config = parsed.config
    hub = replace(hub_of(settings, cache, progress=not config.json_output), only=True)
    judge = suitability(parsed, settings, hardware.detect(), memory=False)  # it may be served elsewhere
    model_files(config, hub, judge)
    return 0


def _quantize(command: str, words: Sequence[str]) -> int:
    from tgi.commands import quantize

    return quantize.quantize(command, words, read_environment())


def _launcher_words(words: Sequence[str]) -> list[str]:
    """TGI's server arguments as the launcher's: the model id by position, typer's `--no-x`, other names."""
    skipped = {"--extension", "--logger-level", "--max-image-fetch-size"}
    ignored = {"--auto-convert", "--no-auto-convert", "--merge-lora", "--no-merge-lora"}
    renamed = {"--uds-path": "--shard-uds-path"}
    result: list[str] = []
    rest = list(words)
    if rest and not rest[0].startswith("-"):
        result += ["--model-id", rest.pop(0)]
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name in ignored or (name in skipped and equals):
            continue
        if name in skipped:
            rest = rest[1:]
        elif name.startswith("--no-"):
            result.append(f"--{name[5:]}=false")
        elif name in ("--sharded",) and not equals and (not rest or switch(rest[0]) is None):
            result.append("--sharded=true")
        else:
            result.append(renamed.get(name, name) + equals + value)
    return result


def _say_start(parsed: Parsed, facts: hardware.Hardware) -> None:
    config = parsed.config
    secret = {option.name for option in options() if option.flag.secret}
    given = {name: "***" if name in secret else getattr(config, name) for name in sorted(parsed.given)}
    shown = ", ".join(f"{name}: {value!r}" for name, value in given.items())
    logger.info("Args { %s }", shown)
    if config.env:
        gpus = ", ".join(facts.gpus) or "none"
        logger.info(
            "Runtime environment: version %s, Python %s, %s, CPU %s with %d usable cores, %.1f GiB available, GPUs %s",
            *(tgi.__version__, platform.python_version(), platform.platform(), facts.cpu_name, facts.cpu_count),
            *(facts.available_memory / 2**30, gpus),
        )
