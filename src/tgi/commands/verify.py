"""`tgi verify-determinism`: proves on a model that answers do not depend on what else the server does.

Owns flags, progress, the table and the exit status: 0 when everything was equal, 1 when something differed or
the model could not be loaded. The checks are `engine.determinism`'s, made in a process with torch. Called by
`cli`.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
from rich.console import Console

from tgi import __version__, children, hardware, logs
from tgi.child_lines import result_of
from tgi.engine.determinism.report import Check, Line, Report, Started
from tgi.hub.prepare import prepare_parsed
from tgi.settings.config import EngineConfig, environment_settings
from tgi.settings.flags import flag
from tgi.settings.help import render
from tgi.settings.parse import Option, options, parse, read_values
from tgi.settings.ranges import Range
from tgi.settings.resolve import check_ranges

COMMAND = "tgi verify-determinism"
ABOUT = """\
Prove on a model that logits, tokens and log-probabilities of a request have the same bits alone, in any batch,
with prompts cut anywhere, after a prefix hit, after preemption, as one of several samples, with any number of threads.
Exit status 0 when all are equal, 1 otherwise. Takes the flags of `tgi serve`."""
EXAMPLES = """\
tgi verify-determinism
tgi verify-determinism --model-id ./my-model --quantize int8 --kv-cache-dtype int8
tgi verify-determinism --model-id org/name --json"""
VERIFICATION = "Verification"


@dataclass(frozen=True)
class VerifyFlags:
    """Flags beside the launcher's."""

    seed: int | None = flag(
        VERIFICATION,
        "Seed of the random prompts",
        env=None,
        shown_default="another each time; the report names it",
        within=Range(0, 1 << 64),
    )
    json: bool = flag(VERIFICATION, "Print the report as JSON", default=False, env=None)


def verify(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """`tgi verify-determinism`: the exit status. Raises UsageError, StartupError."""
    own = options(VerifyFlags)
    if "--help" in words or "-h" in words:
        print(render(COMMAND, ABOUT, EXAMPLES, known=(*own, *options())))
        return 0
    if "--version" in words or "-V" in words:
        print(f"tgi {__version__}")
        return 0
    mine, theirs = _divide(words, own)
    flags = VerifyFlags(**read_values(own, mine, {})[0])
    check_ranges(flags)
    parsed = parse(theirs, variables)
    settings = environment_settings(variables)
    level = settings.log_level if "LOG_LEVEL" in variables else "warn"
    logs.configure(level, color=settings.color, stream=sys.stderr)
    _, engine = prepare_parsed(parsed, variables, hardware.detect())
    engine = replace(engine, log_level=level)
    seed = secrets.randbits(32) if flags.seed is None else flags.seed
    progress = None if flags.json else Progress()
    report = run(engine, seed, progress or (lambda line: None))
    if flags.json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        print(conclusion(report))
    return 0 if report.passed else 1


def run(engine: EngineConfig, seed: int, hear: Callable[[Line], None]) -> Report:
    """Make the checks in a child process; `hear` gets each line. Raises StartupError."""
    command = children.python("tgi.engine.determinism.main", "--seed", str(seed))
    return result_of("the verification", command, engine, Line, Report, hear)


class Progress:
    """A line for every check when it ends; on a terminal also the one under way."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._status = self._console.status("Loading the model")
        if self._console.is_terminal:
            self._status.start()

    def __call__(self, line: Line) -> None:
        if isinstance(line, Started):
            self._status.update(f"{line.name}: {line.what}")
        elif isinstance(line, Check):
            self._console.print(row(line), markup=False)
        else:
            self._status.stop()


def row(check: Check) -> str:
    """A check as a line of the table."""
    rows = f"{check.compared:>6} rows" if check.verdict != "not run" else " " * 11
    note = f" ({check.detail})" if check.detail else ""
    if check.verdict == "differs":
        note = f" ({check.detail}; {check.different} rows, logits by up to {check.largest_difference:.3g})"
    return f"{check.verdict:<8} {check.name:<12} {rows} {check.seconds:>6.1f} s  {check.what}{note}"


def conclusion(report: Report) -> str:
    """What was proved, for which engine."""
    kernels = sorted(set(report.kernels.values()))
    native = any(kernel.startswith("native") for kernel in kernels)
    roles = {"weights": report.quantize, "activations": report.activation_dtype, "cache": report.kv_cache_dtype}
    types = ", ".join([report.dtype, *(f"{role} {dtype}" for role, dtype in roles.items() if dtype)])
    engine = f"{report.model_id} in {types} on {report.device} with {report.threads} threads, {', '.join(kernels)}"
    compared = sum(check.compared for check in report.checks)
    skipped = [check.name for check in report.checks if check.verdict == "not run"]
    differing = [check.name for check in report.checks if check.verdict == "differs"]
    lines = [f"{engine}; seed {report.seed}."]
    if skipped:
        lines.append(f"Not run: {', '.join(skipped)}.")
    if differing:
        lines.append(f"Answers DEPEND on how they are computed: {', '.join(differing)}.")
        if not native:
            lines.append("The torch operations in use do not promise equal bits; the native CPU kernels do.")
    elif report.passed:
        lines.append(f"All {compared} rows of logits, tokens and log-probabilities have the same bits.")
    else:
        lines.append("Nothing could be compared.")
    return "\n".join(lines)


def _divide(words: Sequence[str], own: Sequence[Option]) -> tuple[list[str], list[str]]:
    """The words of our own flags, and the rest for the launcher's parser."""
    mine: list[str] = []
    theirs: list[str] = []
    by_name = {option.long: option for option in own}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if name not in by_name:
            theirs.append(word)
            continue
        mine.append(word)
        if by_name[name].type is not bool and not equals and rest:
            mine.append(rest.pop(0))
    return mine, theirs
