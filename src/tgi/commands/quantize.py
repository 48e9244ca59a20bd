"""`tgi quantize` and `text-generation-server quantize`: write a quantised checkpoint.

Owns flags, the bar and the last line. The work is `models.making`'s, in a process with torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tgi import __version__, children, hardware, logs
from tgi.child_lines import result_of
from tgi.errors import ArgumentError
from tgi.hub import files
from tgi.hub.known import with_full_name
from tgi.hub.prepare import hub_of, is_gguf, model_files
from tgi.models.making.job import GGUF_TYPES, METHODS, TOKENS, Job, Line, Made
from tgi.models.making.job import Progress as Step
from tgi.settings.config import environment_settings
from tgi.settings.flags import flag
from tgi.settings.help import render
from tgi.settings.parse import UsageError, options, parse, read_values
from tgi.settings.ranges import Range
from tgi.settings.resolve import check_ranges
from tgi.shorten import size

ABOUT = """\
Write a quantised checkpoint of a model: MODEL_ID, a directory or an id on the hub, into the directory OUTPUT_DIR.
An interrupted job goes on where it was when the same command is given again."""
EXAMPLES = """\
tgi quantize ./my-model ./my-model-int4 --method int4
text-generation-server quantize org/name ./my-model-gptq --groupsize 128 --act-order"""
QUANTIZE = "Quantization"
SOURCE = "Model"


CALIBRATED = ("bits", "groupsize", "act_order", "sym", "percdamp", "tokens")
"""Flags of gptq and awq alone."""
BITS = {"gptq": (2, 3, 4, 8), "awq": (4,)}


@dataclass(frozen=True)
class QuantizeFlags:
    """The flags: TGI's, and our own."""

    method: str | None = flag(
        QUANTIZE,
        "gptq, awq: in the files that other servers read as well; int8 to int4: what --quantize of that name makes at "
        "every start, which then only reads",
        shown_default="gptq",
        env=None,
        choices=METHODS,
    )
    gguf: str | None = flag(
        QUANTIZE,
        "In place of --method: write a GGUF file of this type, OUTPUT_DIR itself or below it; needs the package gguf",
        env=None,
        choices=GGUF_TYPES,
    )
    bits: int | None = flag(QUANTIZE, "Of a weight: 2, 3, 4 or 8 with gptq, 4 with awq", env=None, shown_default="4")
    groupsize: int | None = flag(
        QUANTIZE,
        "gptq, awq: columns of a row that share a scale; -1: all of them",
        env=None,
        shown_default="128",
        within=Range(-1, 1 << 20),
    )
    act_order: bool = flag(QUANTIZE, "gptq: round the columns with the largest inputs first", default=False, env=None)
    sym: bool = flag(
        QUANTIZE, "gptq: no zero points, which costs quality but is what some kernels need", default=False, env=None
    )
    percdamp: float | None = flag(
        QUANTIZE,
        "gptq, awq: what is added to the diagonal of a Hessian, in parts of its mean",
        env=None,
        shown_default="0.01",
        within=Range(0, 1),
    )
    tokens: int | None = flag(
        QUANTIZE,
        "gptq, awq: tokens of the text that are used",
        env=None,
        shown_default=str(TOKENS),
        within=Range(64, 1 << 24),
    )
    calibration: str | None = flag(
        QUANTIZE, "A text file whose tokens show what the model will read", env=None, shown_default="a bundled text"
    )
    threads: int | None = flag(QUANTIZE, "Threads", env=None, shown_default="one a core", within=Range(1, 1024))
    json: bool = flag(QUANTIZE, "Print lines of JSON, no bar", default=False, env=None)
    revision: str | None = flag(SOURCE, "Revision on the hub", env=None, shown_default="main")
    huggingface_hub_cache: str | None = flag(SOURCE, "Where downloads are kept", env=None)
    trust_remote_code: bool = flag(SOURCE, "Has no effect: no code of a model is run", default=False, env=None)
    upload_to_model_id: str | None = flag(SOURCE, "Not supported: `hf upload` does it", env=None)
    logger_level: str = flag(SOURCE, "Level of log lines", default="INFO", env=None)
    json_output: bool = flag(SOURCE, "Log lines as JSON", default=False, env=None)


def quantize(command: str, words: Sequence[str], variables: Mapping[str, str]) -> int:
    """The command: its exit status. Raises UsageError, StartupError."""
    known = options(QuantizeFlags)
    if "--help" in words or "-h" in words:
        usage = f"{command} quantize MODEL_ID OUTPUT_DIR"
        print(render(usage, ABOUT, EXAMPLES, known=known, environment="HF_TOKEN and the like are read as by serving."))
        return 0
    if "--version" in words or "-V" in words:
        print(f"tgi {__version__}")
        return 0
    places, rest = positions(words)
    flags = QuantizeFlags(**read_values(known, rest, {})[0])
    check_ranges(flags)
    if flags.upload_to_model_id is not None:
        raise ArgumentError("--upload-to-model-id is not supported: `hf upload` puts the directory on the hub")
    _check(flags)
    logs.configure(flags.logger_level.lower(), json_output=flags.json_output, stream=sys.stderr)
    job = _job(places, flags, variables)
    made = run(job, (lambda line: print(msgspec.json.encode(line).decode(), flush=True)) if flags.json else None)
    if not flags.json:
        print(conclusion(job, made))
    return 0


def positions(words: Sequence[str]) -> tuple[tuple[str, str], list[str]]:
    """MODEL_ID and OUTPUT_DIR, and the other words; typer's `--no-x` as `--x=false`. Raises UsageError."""
    by_name = {option.long: option for option in options(QuantizeFlags)}
    places: list[str] = []
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name = word.partition("=")[0]
        if name.startswith("--no-"):
            rest.append(f"--{name[5:]}=false")
        elif word.startswith("-"):
            rest.append(word)
            if name in by_name and by_name[name].type is not bool and "=" not in word and left:
                rest.append(left.pop(0))
        else:
            places.append(word)
    if len(places) != 2:
        raise UsageError(f"MODEL_ID and OUTPUT_DIR are needed, {len(places)} are given")
    return (places[0], places[1]), rest


def run(job: Job, hear: Callable[[Line], None] | None) -> Made:
    """Do it in a child process. hear: gets each line; None: a bar. Raises StartupError."""
    with Bar(shown=hear is None) as bar:
        return result_of("the quantisation", children.python("tgi.models.making.main"), job, Line, Made, hear or bar)


class Bar:
    """How far the job is, on a terminal; elsewhere a line for each kind of work."""

    def __init__(self, shown: bool) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns)
        self._bar = shown and self._progress.console.is_terminal
        self._progress.disable = not self._bar
        self._lines = shown and not self._bar
        self._task = self._progress.add_task("Opening", total=None)
        self._what = ""

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._progress.stop()

    def __call__(self, line: Line) -> None:
        if not isinstance(line, Step):
            return
        self._progress.update(self._task, description=line.what, completed=line.done, total=line.total)
        if self._lines and line.what != self._what:
            print(line.what, flush=True)
        self._what = line.what


def conclusion(job: Job, made: Made) -> str:
    """What was made, and how to serve it."""
    share = made.bytes / max(1, made.original_bytes)
    return (
        f"{job.target}: {size(made.bytes)} of weights ({share:.0%} of the original), {made.matrices} matrices at "
        f"{made.bits:.2f} bits a weight, in {made.seconds:.0f} s. Serve it with: tgi serve --model-id {job.target}"
    )


def _check(flags: QuantizeFlags) -> None:
    """What can be seen before anything is read. Raises ArgumentError."""
    if flags.calibration is not None and not Path(flags.calibration).is_file():
        raise ArgumentError(f"--calibration: there is no file {flags.calibration}")
    method = flags.method or "gptq"
    others = {"gptq": (), "awq": ("act_order", "sym")}.get(method, CALIBRATED)
    if flags.gguf is not None:
        method, others = "gguf", (*CALIBRATED, "method", "calibration")
    for name in others:
        if getattr(flags, name) not in (None, False):
            what = f"--gguf {flags.gguf}" if method == "gguf" else f"--method {method}"
            raise ArgumentError(f"--{name.replace('_', '-')} has no effect with {what}: leave it out")
    known = BITS.get(method, ())
    if flags.bits is not None and flags.bits not in known:
        raise ArgumentError(f"--bits {flags.bits}: {method} has {', '.join(map(str, known))}")
    if flags.groupsize is not None and flags.groupsize != -1 and (flags.groupsize < 16 or flags.groupsize % 16):
        raise ArgumentError(f"--groupsize {flags.groupsize}: -1 or a multiple of 16 is needed")


def _target(path: Path, name: str, flags: QuantizeFlags) -> Path:
    """What is written: the directory, or a file in it where it is to be GGUF."""
    if flags.gguf is None or path.suffix == ".gguf":
        return path.absolute()
    return (
        path.absolute() / f"{Path(name).resolve().name if Path(name).exists() else Path(name).name}-{flags.gguf}.gguf"
    )


def _job(places: tuple[str, str], flags: QuantizeFlags, variables: Mapping[str, str]) -> Job:
    """With the model on this disk. Raises StartupError."""
    name, target = places
    words = ["--model-id", name, *(["--revision", flags.revision] if flags.revision else [])]
    config = with_full_name(parse(words, {})).config
    cache = flags.huggingface_hub_cache or variables.get("HUGGINGFACE_HUB_CACHE") or None
    model = model_files(config, hub_of(environment_settings(variables), cache, progress=not flags.json))
    if is_gguf(model):
        raise ArgumentError(f"{name} is a GGUF file: name the checkpoint of safetensors files that it was made from")
    names = [entry.name for entry in Path(model.path).iterdir()]
    keep = [*files.small_files(names), *(["LICENSE"] if "LICENSE" in names else [])]
    return Job(
        source=model.path,
        target=str(_target(Path(target), name, flags)),
        method=flags.method or "gptq",
        gguf=flags.gguf,
        bits=flags.bits or 4,
        group=128 if flags.groupsize is None else flags.groupsize or -1,
        symmetric=flags.sym,
        act_order=flags.act_order,
        percdamp=0.01 if flags.percdamp is None else flags.percdamp,
        tokens=flags.tokens or TOKENS,
        keep=tuple(name for name in keep if name != "config.json"),
        calibration=None if flags.calibration is None else str(Path(flags.calibration).absolute()),
        threads=flags.threads or hardware.cpu_count(),
        log_level=flags.logger_level.lower(),
        json_output=flags.json_output,
    )
