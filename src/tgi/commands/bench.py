"""The command `tgi bench`, from the words of a command line to tables and files.

Owns the checks of flag values and the exit status: 0, also after `q`; 1 when a request failed or nothing could be
measured; 130 after Ctrl-C. Does not measure (`tgi.bench`).
"""

from __future__ import annotations

import asyncio
import random
import secrets
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from rich.console import Console

from tgi import __version__
from tgi.bench import plot, report
from tgi.bench.dialects import Api
from tgi.bench.errors import BenchError
from tgi.bench.http import Client
from tgi.bench.load import Arrivals, Load, Progress, Source, run
from tgi.bench.prompts import text
from tgi.bench.screen import Sweep, draw
from tgi.bench.summary import Objectives, summarize, warnings
from tgi.bench.target import Target, find
from tgi.bench.terminal import interrupts, keys, screen
from tgi.commands.bench_flags import BenchFlags
from tgi.commands.bench_values import lengths, listed, positive, rate, run_loop, whole
from tgi.settings.help import render
from tgi.settings.parse import UsageError, options, read_values
from tgi.settings.resolve import check_ranges

BENCH = "tgi bench"
BENCH_EXAMPLES = """\
tgi bench
tgi bench -c 1,4,8,16 --prompt-tokens 128 --output-tokens 64
tgi bench --url http://127.0.0.1:8000 --rate 1,2,4 --duration 60 --json figures.json --plot figures.svg"""
NO_VARIABLES = "The key can also be given as environment variable API_KEY."
DEFAULT_CONCURRENCY = "1,4,8,16"
REQUESTS_EACH = 4
RATE_DURATION_S = 30.0


def bench(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """`tgi bench`: the exit status. Raises UsageError, BenchError."""
    known = options(BenchFlags)
    if "--help" in words or "-h" in words:
        about = "Measure a server that speaks TGI's or OpenAI's API, at rising load."
        print(render(BENCH, about, BENCH_EXAMPLES, known=known, environment=NO_VARIABLES))
        return 0
    if "--version" in words or "-V" in words:
        print(f"tgi {__version__}")
        return 0
    flags = BenchFlags(**read_values(known, words, variables)[0])
    loads = _loads(flags)
    _check(flags)
    check_ranges(flags)
    return run_loop(_bench(flags, loads))


def _loads(flags: BenchFlags) -> list[Load]:
    """The levels of the sweep. Raises UsageError."""
    if flags.rate is not None and flags.concurrency is not None:
        raise UsageError("--rate and --concurrency exclude each other: with a rate requests come unasked")
    if flags.rate is not None and flags.arrivals == "burst":
        raise UsageError("--rate and --arrivals burst exclude each other")
    if flags.requests == 0:
        raise UsageError("invalid value '0' for '--requests': at least 1 is needed")
    positive(flags.duration, "--duration")
    if flags.rate is not None:
        unlimited = flags.requests is None and flags.duration is None
        duration = RATE_DURATION_S if unlimited else flags.duration
        return [
            Load(rate=one, requests=flags.requests, duration=duration) for one in listed(flags.rate, "--rate", rate)
        ]
    loads = []
    for concurrency in listed(flags.concurrency or DEFAULT_CONCURRENCY, "--concurrency", whole):
        requests = flags.requests
        if requests is None and flags.duration is None:
            requests = REQUESTS_EACH * concurrency
        arrivals = cast(Arrivals, flags.arrivals)
        loads.append(Load(concurrency, arrivals=arrivals, requests=requests, duration=flags.duration))
    return loads


def _check(flags: BenchFlags) -> None:
    """What can be seen before anything is sent. Raises UsageError, BenchError."""
    prompts = lengths(flags.prompt_tokens, "--prompt-tokens")
    lengths(flags.output_tokens, "--output-tokens")
    for value, name in (
        (flags.timeout, "--timeout"),
        (flags.slo_ttft, "--slo-ttft"),
        (flags.slo_tpot, "--slo-tpot"),
        (flags.slo_e2e, "--slo-e2e"),
    ):
        positive(value, name)
    if flags.shared_prefix >= prompts.low:
        raise UsageError(f"--shared-prefix {flags.shared_prefix} must be shorter than --prompt-tokens {prompts}")
    if flags.prompt_ids is not None and flags.api != "openai-completions":
        raise UsageError("--prompt-ids needs --api openai-completions: only that API takes token ids")
    if flags.prompt_ids is not None and flags.prompt_ids < 2:
        raise UsageError(f"invalid value '{flags.prompt_ids}' for '--prompt-ids': the size of the vocabulary is needed")
    if flags.plot is not None:
        plot.check(Path(flags.plot))
    for name, path in (("--json", flags.json), ("--plot", flags.plot)):
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise BenchError(f"{name} {path}: there is no such directory")


async def _bench(flags: BenchFlags, loads: Sequence[Load]) -> int:
    console = Console()
    seed = secrets.randbits(32) if flags.seed is None else flags.seed
    rng = random.Random(seed)
    async with Client(flags.url, flags.api_key, flags.timeout) as client:
        api = None if flags.api == "auto" else cast(Api, flags.api)
        target = await find(client, api, flags.model, text=lambda words: text(rng, words))
        source = _source(flags, target, rng)
        await _warm_up(target, source, flags.warmup)
        title = f"{target.model} at {client.url} ({target.dialect.name})"
        sweep, interrupted = Sweep(title, loads), asyncio.Event()
        await _measure(target, source, rng, sweep, interrupted, console, flags)
    setup = _setup(flags, target, seed)
    print(f"{title}: prompts of {setup.prompt_tokens} tokens, {setup.output_tokens} new tokens, greedy, seed {seed}")
    print(report.LEGEND)
    wide = console if console.is_terminal else Console(width=2 * report.WIDE)
    wide.print(*report.tables(sweep.rows, wide.width), sep="")
    for note in (*target.notes, *warnings(sweep.rows)):
        print(f"warning: {note}", file=sys.stderr)
    if flags.json is not None:
        report.save(Path(flags.json), setup, sweep.rows)
    if flags.plot is not None and sweep.rows:
        plot.save(Path(flags.plot), title, sweep.rows)
    if interrupted.is_set():
        return 130
    return 1 if any(row.errors for row in sweep.rows) else 0


async def _measure(
    target: Target,
    source: Source,
    rng: random.Random,
    sweep: Sweep,
    interrupted: asyncio.Event,
    console: Console,
    flags: BenchFlags,
) -> None:
    """All levels, into `sweep.rows`, until done or stopped."""
    objectives = Objectives(flags.slo_ttft, flags.slo_tpot, flags.slo_e2e)
    stop = asyncio.Event()

    def press(key: str) -> None:
        if key == "q":
            stop.set()

    def interrupt() -> None:
        interrupted.set()
        stop.set()

    with (
        interrupts(interrupt),
        keys(press),
        screen(console, lambda: draw(sweep, target.client.clock(), console.width), not flags.no_live),
    ):
        for load in sweep.loads:
            sweep.progress = Progress(stop=stop)
            level = await run(target, load, source.draw, rng, sweep.progress)
            if level.records:
                sweep.rows.append(summarize(level, objectives))
            sweep.progress = None
            if level.stopped:
                return


def _source(flags: BenchFlags, target: Target, rng: random.Random) -> Source:
    return Source(
        rng,
        target.dialect,
        target.scale,
        lengths(flags.prompt_tokens, "--prompt-tokens"),
        lengths(flags.output_tokens, "--output-tokens"),
        shared_prefix=flags.shared_prefix,
        vocabulary=flags.prompt_ids,
    )


async def _warm_up(target: Target, source: Source, count: int) -> None:
    """Requests like those to come. Raises BenchError when one fails: so would the others."""
    for record in await asyncio.gather(*(target.send(*source.draw()) for _ in range(count))):
        if record.error is not None:
            kind, message = record.error
            raise BenchError(f"a request to warm up failed ({kind}): {message}")


def _setup(flags: BenchFlags, target: Target, seed: int) -> report.Setup:
    return report.Setup(
        url=target.client.url,
        api=target.dialect.name,
        model=target.model,
        prompt_tokens=flags.prompt_tokens,
        output_tokens=flags.output_tokens,
        arrivals="rate" if flags.rate is not None else flags.arrivals,
        shared_prefix=flags.shared_prefix,
        seed=seed,
        version=__version__,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=target.notes,
    )
