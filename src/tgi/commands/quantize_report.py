"""`tgi quantize-report`: what each format of a model's weights costs and gives, as a table, JSON and a plot.

Owns flags, the order of things and the output. Each format is measured by `engine.quality` in a process of its own.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from rich.console import Console
from tokenizers import Tokenizer

from tgi import __version__, children, hardware, logs
from tgi.bench import plot as plots
from tgi.child_lines import result_of
from tgi.commands.quality_table import Row, peers_of, row_of, save_plot, table
from tgi.engine.quality.report import Line, Measured, Part, Task
from tgi.errors import ArgumentError, StartupError
from tgi.hub.prepare import prepare_parsed
from tgi.settings.config import EngineConfig, environment_settings
from tgi.settings.flags import QUANTIZATIONS, flag
from tgi.settings.help import render
from tgi.settings.parse import UsageError, options, parse, read_values
from tgi.settings.ranges import Range
from tgi.settings.resolve import check_ranges
from tgi.untrusted import printable

COMMAND = "tgi quantize-report"
ABOUT = """\
Measure what each format of a model's weights costs and gives: bits, memory, perplexity and its change, KL divergence
from the unquantised model, tokens a second. MODEL_ID is a directory or an id on the hub."""
EXAMPLES = """\
tgi quantize-report ./my-model
tgi quantize-report ./my-model --formats int8,int4,./my-model-gptq,./my-model-Q4_K_M.gguf --plot formats.svg
tgi quantize-report ./my-model --text held-out.txt --seconds 0 --json"""
REPORT = "Report"
UNQUANTISED = "unquantised"
DEFAULT_FORMATS = "int8,int6,int5,int4"
PIECE_TOKENS = 512
"""Of a piece of text, which is read by itself."""
TOPICS = ("assert", "assignment", "class", "compound", "conversions", "import", "naming", "typesseq", "with", "yield")
"""Of Python's own help: English text that is on every machine, and with which nothing here is calibrated."""


@dataclass(frozen=True)
class ReportFlags:
    """The flags."""

    formats: str = flag(
        REPORT,
        "Comma-separated: values of --quantize, and directories or files of quantised checkpoints of the same model",
        default=DEFAULT_FORMATS,
        env=None,
    )
    text: str | None = flag(
        REPORT, "A text file that no format was calibrated with", env=None, shown_default="help topics of Python"
    )
    tokens: int = flag(REPORT, "Tokens of the text that are read", default=4096, env=None, within=Range(64, 1 << 20))
    seconds: float = flag(
        REPORT, "Seconds for each measurement of speed; 0: none", default=4.0, env=None, within=Range(0, 600)
    )
    dtype: str | None = flag(REPORT, "As in `tgi serve`", env=None, choices=("float32", "bfloat16", "float16"))
    revision: str | None = flag(REPORT, "Revision on the hub", env=None)
    threads: int | None = flag(REPORT, "Threads", env=None, shown_default="one a core", within=Range(1, 1024))
    device: str | None = flag(REPORT, "As in `tgi serve`", env=None)
    calibration: str | None = flag(REPORT, "As in `tgi serve`", env=None)
    plot: str | None = flag(REPORT, "Save a plot of quality against speed, PNG or SVG", env=None)
    peers: str | None = flag(
        REPORT,
        "A JSON file of other engines' formats for the plot: a list of {name, change (of perplexity, 0.05 for 5 %), "
        'decode: {"1": tokens a second, "16": ...}}',
        env=None,
    )
    json: bool = flag(REPORT, "Print JSON", default=False, env=None)


def quantize_report(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """The command: its exit status, 1 where a format could not be measured. Raises UsageError, StartupError."""
    known = options(ReportFlags)
    if "--help" in words or "-h" in words:
        print(
            render(f"{COMMAND} MODEL_ID", ABOUT, EXAMPLES, known=known, environment="HF_TOKEN and the like are read.")
        )
        return 0
    if "--version" in words or "-V" in words:
        print(f"tgi {__version__}")
        return 0
    if not words or words[0].startswith("-"):
        raise UsageError("MODEL_ID is needed, before the flags")
    flags = ReportFlags(**read_values(known, words[1:], {})[0])
    check_ranges(flags)
    if flags.plot is not None:
        plots.check(Path(flags.plot))
    peers = peers_of(Path(flags.peers)) if flags.peers is not None else []
    logs.configure("warn", color=environment_settings(variables).color, stream=sys.stderr)
    names = formats_of(flags.formats)
    rows = Report(words[0], flags, variables).rows(names)
    if flags.json:
        print(msgspec.json.format(msgspec.json.encode(rows)).decode())
    else:
        Console(width=None if sys.stdout.isatty() else 160).print(table(words[0], rows))
    if flags.plot is not None:
        save_plot(Path(flags.plot), words[0], rows, peers)
    return int(any(row.error for row in rows))


def formats_of(text: str) -> list[str]:
    """Of --formats, each once. Raises UsageError."""
    names = list(
        dict.fromkeys(name.strip() for name in text.split(",") if name.strip() and name.strip() != UNQUANTISED)
    )
    for name in names:
        if name not in QUANTIZATIONS and not Path(name).exists():
            raise UsageError(
                f"invalid value '{printable(name)}' for '--formats': there is no such file or directory, and the "
                f"formats are {', '.join(QUANTIZATIONS)}"
            )
    return names


class Report:
    """Measures formats of one model, one after the other."""

    def __init__(self, model: str, flags: ReportFlags, variables: Mapping[str, str]) -> None:
        self._model, self._flags, self._variables = model, flags, variables
        self._console = Console(stderr=True, highlight=False)

    def rows(self, formats: Sequence[str]) -> list[Row]:
        """The unquantised model's, then one for each format. Raises StartupError where that of the model fails."""
        whole = self._engine(UNQUANTISED)
        texts = self._texts(Path(whole.model_path))
        with tempfile.TemporaryDirectory(prefix="tgi-report-") as folder:
            reference = str(Path(folder) / "reference")
            base = self._measure(UNQUANTISED, whole, texts, reference)
            rows = [row_of(UNQUANTISED, whole.model_path, base, base)]
            for name in formats:
                try:
                    engine = self._engine(name)
                    found = self._measure(name, engine, texts, reference)
                    rows.append(row_of(name, engine.model_path, found, base))
                except StartupError as error:
                    self._console.print(f"{name}: {error}", markup=False)
                    rows.append(Row(name=name, error=str(error)))
        return rows

    def _engine(self, name: str) -> EngineConfig:
        """How the server would run a format. Raises StartupError."""
        flags = self._flags
        path = name if name != UNQUANTISED and name not in QUANTIZATIONS else self._model
        words = ["--model-id", path, "--max-total-tokens", "2048", "--max-batch-size", "16"]
        if name in QUANTIZATIONS:
            words += ["--quantize", name]
        for option in ("dtype", "revision", "threads", "device"):
            value = getattr(flags, option)
            if value is not None and (option != "revision" or path == self._model):
                words += [f"--{option}", str(value)]
        if flags.calibration is not None and name in ("int6", "int5", "int4"):
            words += ["--calibration", flags.calibration]
        _, engine = prepare_parsed(parse(words, {}), self._variables, hardware.detect())
        return replace(engine, log_level="warn", max_batch_total_tokens=None)

    def _texts(self, model: Path) -> tuple[tuple[int, ...], ...]:
        """Token ids of pieces of the text. Raises ArgumentError."""
        flags = self._flags
        try:
            pieces = help_topics() if flags.text is None else [Path(flags.text).read_text(encoding="utf-8")]
        except (OSError, UnicodeDecodeError) as error:
            raise ArgumentError(f"--text {flags.text} cannot be read as UTF-8: {error}") from None
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        found: list[tuple[int, ...]] = []
        left = flags.tokens
        for text in pieces:
            ids = tokenizer.encode(text).ids[:left]
            found += [tuple(ids[at : at + PIECE_TOKENS]) for at in range(0, len(ids), PIECE_TOKENS)]
            left -= len(ids)
        found = [piece for piece in found if len(piece) > 1]
        if not found:
            raise ArgumentError(f"--text {flags.text} holds no two tokens")
        return tuple(found)

    def _measure(self, name: str, engine: EngineConfig, texts: tuple[tuple[int, ...], ...], reference: str) -> Measured:
        task = Task(engine, texts, reference, name == UNQUANTISED, self._flags.seconds)
        with self._console.status(name) as status:

            def hear(part: Part) -> None:
                far = f" {part.done / part.total:.0%}" if part.total else ""
                status.update(f"{name}: {part.what}{far}")

            return run(task, hear)


def run(task: Task, hear: Callable[[Part], None]) -> Measured:
    """Measure in a child process. Raises StartupError."""

    def pass_on(line: Line) -> None:
        if isinstance(line, Part):
            hear(line)

    return result_of("the measurement", children.python("tgi.engine.quality.main"), task, Line, Measured, pass_on)


def help_topics() -> list[str]:
    """Pieces of English text that come with Python."""
    from pydoc_data.topics import topics  # large, and only read here

    return [topics[name] for name in TOPICS if name in topics]
