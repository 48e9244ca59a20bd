"""`text-generation-benchmark`: TGI's runs of one batch after another, over HTTP.

Owns what a run is and its figures. TGI's tool calls the model shard, which prefills a batch and then
decodes it. Here a batch is that number of requests sent together, and the server decides. Prefill ends when
every request has its first token; decode is what comes after. Where all first tokens come from one
step, as they do for short prompts, that is TGI's definition.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tgi.bench.dialects import Ask
from tgi.bench.errors import BenchError
from tgi.bench.intervals import tokens_within
from tgi.bench.load import Load, Progress, run
from tgi.bench.record import Record
from tgi.bench.target import Target

SEED = 0
LOREM = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna "
    "aliqua ut enim ad minim veniam quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo consequat "
    "duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu fugiat nulla pariatur excepteur "
    "sint occaecat cupidatat non proident sunt in culpa qui officia deserunt mollit anim id est laborum"
)


@dataclass(frozen=True)
class Settings:
    """The flags of `text-generation-benchmark`; None: not set."""

    batch_sizes: tuple[int, ...]
    sequence_length: int
    decode_length: int
    runs: int
    warmups: int
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    watermark: bool = False
    do_sample: bool = False
    top_n_tokens: int | None = None

    def parameters(self) -> dict[str, Any]:
        """What goes into `parameters` of every request."""
        names = (
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
            "repetition_penalty",
            "frequency_penalty",
            "top_n_tokens",
        )
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {"seed": SEED, "watermark": self.watermark, "do_sample": self.do_sample, **given}


@dataclass
class Batch:
    """Figures of one batch size, a value for each run; latencies in milliseconds."""

    size: int
    prefill_ms: list[float] = field(default_factory=list)
    prefill_tps: list[float] = field(default_factory=list)
    token_ms: list[float] = field(default_factory=list)
    """Gaps between tokens of every stream of every run."""
    decode_ms: list[float] = field(default_factory=list)
    decode_tps: list[float] = field(default_factory=list)

    def add(self, records: Sequence[Record], sequence_length: int) -> None:
        """The figures of one run. `records`: its requests, all of them good."""
        began = min(record.sent for record in records)
        filled = max(record.first for record in records)
        last = max(record.last for record in records)
        self.prefill_ms.append((filled - began) * 1e3)
        self.prefill_tps.append(self.size * sequence_length / (filled - began))
        if last > filled:
            tokens = sum(tokens_within(record.times, record.counts, (filled, last)) for record in records)
            self.token_ms += [gap * 1e3 for record in records for gap in record.gaps]
            self.decode_ms.append((last - filled) * 1e3)
            self.decode_tps.append(tokens / (last - filled))


@dataclass
class State:
    """How far the command is, for the screen."""

    batches: list[Batch]
    runs_done: int = 0
    warming: bool = False
    progress: Progress = field(default_factory=Progress)

    @property
    def current(self) -> int:
        """Position of the batch size that runs."""
        return max(0, len(self.batches) - 1)


class Texts:
    """Lorem ipsum, again and again, until there is enough of it.

    Its words come in another order each time: else a prefix cache would skip the prefill of every
    prompt but the first, which TGI's own tool never asks of one.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._words = LOREM.split()

    def __call__(self, words: int) -> str:
        """So many words."""
        found: list[str] = []
        while len(found) < words:
            found += self._rng.sample(self._words, len(self._words))
        return " ".join(found[:words])


async def measure(target: Target, settings: Settings, texts: Texts, rng: random.Random, state: State) -> None:
    """Fill `state.batches`, one batch size after another, until done or stopped.

    Raises BenchError when a request fails; the batch sizes before it stay, and its own complete runs.
    """

    def draw() -> tuple[Ask, bytes]:
        prompt = texts(target.scale.enough_words(settings.sequence_length))
        ask = Ask(prompt, settings.sequence_length, settings.decode_length, cut=True)
        return ask, target.dialect.body(ask)

    for size in settings.batch_sizes:
        batch = Batch(size)
        state.batches.append(batch)
        load = Load(concurrency=size, arrivals="burst", requests=size)
        for number in range(settings.warmups + settings.runs):
            state.runs_done, state.warming = number - settings.warmups, number < settings.warmups
            # A screen looks at `state.progress`, and a key may stop it.
            state.progress.records.clear()
            level = await run(target, load, draw, rng, state.progress)
            if level.stopped:
                return
            _check(level.records, size, settings)
            if number >= settings.warmups:
                batch.add(level.records, settings.sequence_length)
        state.runs_done = settings.runs


def _check(records: Sequence[Record], size: int, settings: Settings) -> None:
    for record in records:
        if record.error is not None:
            kind, message = record.error
            raise BenchError(f"batch size {size}: a request failed ({kind}): {message}")
        if record.prompt_tokens != settings.sequence_length or record.tokens != settings.decode_length:
            raise BenchError(
                f"batch size {size}: a request had {record.prompt_tokens} prompt and {record.tokens:g} new tokens "
                f"where {settings.sequence_length} and {settings.decode_length} were asked for; does the server honour "
                f"truncate and ignore_eos?"
            )


def parameters_rows(model: str, settings: Settings) -> list[tuple[str, str]]:
    """The parameters table in TGI's order; unset values as Rust shows them."""

    def option(value: float | int | None) -> str:
        return "None" if value is None else f"Some({value!r})"

    return [
        ("Model", model),
        ("Sequence Length", str(settings.sequence_length)),
        ("Decode Length", str(settings.decode_length)),
        ("Top N Tokens", option(settings.top_n_tokens)),
        ("N Runs", str(settings.runs)),
        ("Warmups", str(settings.warmups)),
        ("Temperature", option(settings.temperature)),
        ("Top K", option(settings.top_k)),
        ("Top P", option(settings.top_p)),
        ("Typical P", option(settings.typical_p)),
        ("Repetition Penalty", option(settings.repetition_penalty)),
        ("Frequency Penalty", option(settings.frequency_penalty)),
        ("Watermark", str(settings.watermark).lower()),
        ("Do Sample", str(settings.do_sample).lower()),
    ]
