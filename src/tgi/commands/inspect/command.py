"""`tgi inspect`: what a checkpoint is, by which way it would be computed, and what stands in the way."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence

import msgspec

from tgi import __version__, hardware, logs
from tgi.commands.ending import show
from tgi.commands.inspect.gather import inspect as gather
from tgi.commands.inspect.report import render
from tgi.hub.known import with_full_name
from tgi.settings.config import environment_settings
from tgi.settings.parse import UsageError, parse

COMMAND = "tgi inspect"
HELP = """\
Show what a checkpoint is and how this server would compute it, without loading or downloading a weight.

Usage: tgi inspect MODEL [OPTIONS]

MODEL is a directory, a GGUF file, or an id on the hub, of which only config.json, the index of shards and the headers
of safetensors files are fetched, or the beginning of a GGUF file.

  tgi inspect ./my-model
  tgi inspect ./model.Q4_K_M.gguf
  tgi inspect org/name --revision refs/pr/1 --json
  tgi inspect org/name-GGUF:Q4_K_M

It says:
  route        native (one of our families, run as the program below it), through transformers (its own code, with our
               batching), or none, and why
  weights      format and bits per weight; what they take when served
  a sequence   bytes of keys and values for each token, and of states for a whole sequence
  parameters   by part of the model
  program      the operations of the layers, layers that are computed alike once; {} is the layer's number
  tensors      names that were found, that are missing, and that nothing uses
and last whether the model can be served here, by the same check that `tgi serve` makes. The exit status is 0 if it can
and 1 if not.

Options:
  --json                     Print the findings as JSON
  --revision VALUE           Commit, branch or tag of a model on the hub
  --gguf-file VALUE          Which GGUF file of a directory or a repository
  --trust-remote-code        Let the checkpoint's own code describe a model that transformers does not know
  --huggingface-hub-cache VALUE
                             Where downloads are kept
  -h, --help                 Print this text
  -V, --version              Print the version

Further flags of `tgi serve` (--dtype, --quantize, --kv-cache-dtype, --memory, --device ...) change what is said of
memory as they would change serving. `tgi plan` shows where all of the memory would go."""


def inspect(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """`tgi inspect`: exit status 0 when the model can be served. Raises UsageError, StartupError."""
    if not words or "--help" in words or "-h" in words:
        print(HELP)
        return 0 if words else 2
    if "--version" in words or "-V" in words:
        print(f"tgi {__version__}")
        return 0
    rest = [word for word in words if word != "--json"]
    if rest and not rest[0].startswith("-"):
        rest = ["--model-id", *rest]
    parsed = parse(rest, variables)
    if parsed.config.model_id is None:
        raise UsageError("a model is needed: tgi inspect MODEL")
    settings = environment_settings(variables)
    level = settings.log_level if "LOG_LEVEL" in variables else "warn"
    logs.configure(level, color=settings.color, stream=sys.stderr)
    found = gather(with_full_name(parsed), variables, hardware.detect())
    if "--json" in words:
        show(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        color = settings.color is not False and sys.stdout.isatty()
        show(render(found, shutil.get_terminal_size((110, 40)).columns, color))
    return 1 if found.problems else 0
