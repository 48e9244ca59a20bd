"""The command `text-generation-benchmark`, from the words of a command line to TGI's three tables.

Owns the checks of flag values and the exit status: 0, also when stopped by a key; 1 when a request failed or nothing
could be measured. Does not measure (`tgi.bench.classic`).
"""

from __future__ import annotations

import random
import secrets
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console

from tgi import __version__
from tgi.bench import classic, classic_screen, classic_tables
from tgi.bench.errors import BenchError
from tgi.bench.http import Client
from tgi.bench.target import find
from tgi.bench.terminal import interrupts, keys, screen
from tgi.commands.bench_flags import BenchmarkFlags
from tgi.commands.bench_values import listed, run_loop, whole
from tgi.settings.help import render
from tgi.settings.parse import UsageError, options, read_values
from tgi.settings.resolve import check_ranges

BENCHMARK = "text-generation-benchmark"
BENCHMARK_EXAMPLES = """\
text-generation-benchmark
text-generation-benchmark -b 1 -b 16 --sequence-length 512 --decode-length 128"""
VARIABLES = (
    "Flags but --batch-size can also be given as environment variables, as in TGI: the name in upper case with "
    "underscores (--decode-length: DECODE_LENGTH), unless another one is named. The command line wins."
)
DEFAULT_BATCH_SIZES = (1, 2, 4, 8, 16, 32)


def benchmark(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """`text-generation-benchmark`: the exit status. Raises UsageError, BenchError."""
    known = options(BenchmarkFlags)
    if "--help" in words or "-h" in words:
        about = "Measure a server the way TGI's benchmark does."
        print(render(BENCHMARK, about, BENCHMARK_EXAMPLES, known=known, environment=VARIABLES))
        return 0
    if "--version" in words or "-V" in words:
        print(f"{BENCHMARK} {__version__}")
        return 0
    values, given = read_values(known, words, variables)
    flags = BenchmarkFlags(**values)
    settings = _settings(flags)
    check_ranges(flags)
    for option in known:
        if option.flag.no_effect and option.name in given:
            print(f"warning: {given[option.name]} has no effect: {option.flag.no_effect}", file=sys.stderr)
    return run_loop(_benchmark(flags, settings))


def _settings(flags: BenchmarkFlags) -> classic.Settings:
    sizes = tuple(number for word in flags.batch_size for number in listed(word, "--batch-size", whole))
    least = {"sequence_length": 1, "decode_length": 1, "runs": 1, "top_k": 1}
    for name, low in least.items():
        value = getattr(flags, name)
        if value is not None and value < low:
            raise UsageError(f"invalid value '{value}' for '--{name.replace('_', '-')}': at least {low} is needed")
    same = ("sequence_length", "decode_length", "runs", "warmups", "temperature", "top_k", "top_p", "typical_p")
    more = ("repetition_penalty", "frequency_penalty", "watermark", "do_sample", "top_n_tokens")
    return classic.Settings(sizes or DEFAULT_BATCH_SIZES, **{name: getattr(flags, name) for name in (*same, *more)})


async def _benchmark(flags: BenchmarkFlags, settings: classic.Settings) -> int:
    console, rng = Console(), random.Random(secrets.randbits(64))
    texts, state, failure = classic.Texts(rng), classic.State([]), None
    async with Client(flags.url, flags.api_key) as client:
        target = await find(client, "tgi", None, settings.parameters(), text=texts)
        view = classic_screen.View(flags.tokenizer_name or target.model, settings, state)
        with (
            interrupts(state.progress.stop.set),
            keys(view.press),
            screen(console, lambda: classic_screen.draw(view)),
        ):
            try:
                await classic.measure(target, settings, texts, rng, state)
            except BenchError as error:
                failure = error
    if failure is None or any(batch.prefill_ms for batch in state.batches):
        print(classic_tables.tables(view.model, settings, state.batches))
    if failure is not None:
        raise failure
    return 0
