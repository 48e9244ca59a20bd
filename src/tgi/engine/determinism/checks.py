"""The ways in which an engine may compute a request, each against the request alone.

Owns the list of checks and how each condition is brought about and proved to have been met: a check whose
condition did not occur says "not run". Runs on real workers with the scheduler of the server.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from tgi import hardware
from tgi.engine.determinism.recorder import Request, Run, Trace, compare, run
from tgi.engine.determinism.report import Check, Line, Report, Started
from tgi.engine.determinism.requests import NEW_TOKENS, crowd, strangers, subjects
from tgi.engine.worker import Worker
from tgi.settings.config import EngineConfig

CACHE_TOKENS = 8192
"""Enough for every run; the server's own cache may take half the memory."""
CHUNKS = (7, 33, 128)
"""Step budgets: none is a multiple of another, one is no multiple of 4."""
CROWD = 4
"""Requests that together need more blocks than there are."""

MakeWorker = Callable[[EngineConfig], Worker]
Emit = Callable[[Line], None]


@dataclass
class Outcome:
    """Runs of one condition and how it was met; no runs: it could not be, and why."""

    runs: list[Run]
    detail: str
    expected: Mapping[tuple[int, int], Trace] | None = None
    """What to compare with; None: the subjects alone."""


def verify(config: EngineConfig, seed: int, emit: Emit, make_worker: MakeWorker = Worker) -> Report:
    """Make all checks; `emit` hears of each as it begins and ends. Raises StartupError."""
    if config.kv_cache_bytes is None and config.max_batch_total_tokens is None:
        config = replace(config, max_batch_total_tokens=CACHE_TOKENS)
    threads = config.threads or hardware.cpu_count()
    worker = make_worker(replace(config, threads=threads))
    info = worker.info
    report = Report(
        model_id=config.model_id,
        model_type=info.model_type,
        device=info.device,
        dtype=info.dtype,
        quantize=config.quantize,
        activation_dtype=info.activation_dtype,
        kv_cache_dtype=config.kv_cache_dtype,
        kernels=info.kernels,
        threads=threads,
        seed=seed,
    )
    generator = random.Random(seed)
    verification = Verification(worker, generator)
    for name, what, condition in verification.conditions():
        _check(report, emit, name, what, condition, verification.alone)
    del worker
    verification.forget_worker()
    for count in thread_counts(threads) if info.device == "cpu" else []:
        name, what = f"threads {count}", f"with {count} thread{'s' if count > 1 else ''}, alone and in a batch"
        condition = partial(verification.with_threads, partial(make_worker, replace(config, threads=count)))
        _check(report, emit, name, what, condition, verification.alone)
    emit(report)
    return report


def thread_counts(most: int) -> list[int]:
    """1 to `most`, of many only some; and always 3, which divides nothing evenly."""
    counts = {1, 2, 3, 5, most, *(most // 2**power for power in range(8))} if most > 8 else {*range(1, most + 1), 3}
    return sorted(count for count in counts if count)


class Verification:
    """The subjects, what each gives alone, and the conditions to compare with."""

    def __init__(self, worker: Worker, generator: random.Random) -> None:
        self._worker: Worker | None = worker
        self._random = generator
        self.subjects = subjects(generator, worker.info)
        self.alone = self._each_alone(worker, self.subjects)

    def conditions(self) -> Iterator[tuple[str, str, Callable[[], Outcome]]]:
        """Name, words and procedure of every check that needs no other worker."""
        yield "again", "alone a second time", self._again
        yield "batches", "all at once, and among strangers who come and go", self._batches
        yield "chunks", f"prompts cut into chunks of {', '.join(map(str, CHUNKS))} tokens and less", self._chunks
        yield "prefix hit", "after a prefix found in the cache", self._prefix
        yield "preemption", "after being preempted and computed again", self._preemption
        yield "samples", "as one of several samples of a prompt", self._samples

    def forget_worker(self) -> None:
        """So that its memory is free for another."""
        self._worker = None
        gc.collect()

    @property
    def worker(self) -> Worker:
        assert self._worker is not None
        return self._worker

    def with_threads(self, make_worker: Callable[[], Worker]) -> Outcome:
        gc.collect()
        worker = make_worker()
        alone = Run(self._each_alone(worker, self.subjects), [], {})
        return Outcome([alone, run(worker, self.subjects, prefix_caching=False)], "")

    def _each_alone(self, worker: Worker, requests: Mapping[int, Request]) -> dict[tuple[int, int], Trace]:
        traces: dict[tuple[int, int], Trace] = {}
        for number, request in requests.items():
            traces |= run(worker, {number: request}, prefix_caching=False).traces
        return traces

    def _again(self) -> Outcome:
        return Outcome([Run(self._each_alone(self.worker, self.subjects), [], {})], "")

    def _batches(self) -> Outcome:
        runs = [run(self.worker, self.subjects, prefix_caching=False)]
        for _ in range(2):
            others = strangers(self._random, self.worker.info, len(self.subjects))
            everybody = list((self.subjects | others).items())
            self._random.shuffle(everybody)
            arrivals = {number: self._random.randint(0, NEW_TOKENS) for number, _ in everybody}
            runs.append(run(self.worker, dict(everybody), arrivals=arrivals, prefix_caching=False))
        return Outcome(runs, f"up to {max(each.most_running for each in runs)} at once")

    def _chunks(self) -> Outcome:
        runs = []
        longest = max(self.subjects)
        for size in CHUNKS:
            limits = {"max_step_tokens": min(size, self.worker.info.max_batch_prefill_tokens), "prefix_caching": False}
            runs.append(run(self.worker, {longest: self.subjects[longest]}, **limits))
            runs.append(run(self.worker, self.subjects, **limits))
        return Outcome(runs, f"{sum(len(each.stats) for each in runs)} steps")

    def _prefix(self) -> Outcome:
        if not self.worker.info.prefix_caching:
            return Outcome([], "prefix caching is off")
        runs: list[Run] = []
        first = 1000
        for number, request in self.subjects.items():
            half = replace(request, prompt=request.prompt[: max(1, len(request.prompt) // 2)])
            order = {first: half, first + 1: request, number: request}  # half of it is found, then all
            arrivals = {first: 0, first + 1: 1000, number: 2000}  # one after the other
            whole = run(self.worker, order, arrivals=arrivals, prefix_caching=True)
            halfway = {(number, 0): whole.traces[first + 1, 0]}
            runs += [Run(halfway, [], {}), whole]
        hits = sum(sum(each.cached_tokens.values()) for each in runs)
        return Outcome(runs if hits else [], f"{hits} tokens found" if hits else "no prompt fills a block")

    def _preemption(self) -> Outcome:
        info = self.worker.info
        requests = crowd(self._random, info, min(CROWD, info.max_batch_size))
        blocks = 2 * len(requests)  # enough to admit all, too few for all to end
        if not requests or blocks > info.num_blocks:
            return Outcome([], "context or cache are too short")
        tight = run(self.worker, requests, num_blocks=blocks, prefix_caching=False)
        again = run(self.worker, requests, num_blocks=blocks, prefix_caching=info.prefix_caching)
        count = tight.preemptions + again.preemptions
        if not count:
            return Outcome([], "nothing had to be preempted")
        return Outcome([tight, again], f"{count} preemptions", self._each_alone(self.worker, requests))

    def _samples(self) -> Outcome:
        number = next((number for number, one in self.subjects.items() if one.sampling.do_sample), None)
        if number is None:
            return Outcome([], "the context is too short")
        request = self.subjects[number]
        seeds = (request.seeds[0], *(self._random.getrandbits(64) for _ in range(3)))
        together = run(self.worker, {number: replace(request, seeds=seeds)})
        expected = {}
        for index, seed in enumerate(seeds):
            alone = run(self.worker, {number: replace(request, seeds=(seed,))}, prefix_caching=False)
            expected[number, index] = alone.traces[number, 0]
        return Outcome([together], f"{len(seeds)} samples", expected)


def _check(
    report: Report,
    emit: Emit,
    name: str,
    what: str,
    condition: Callable[[], Outcome],
    alone: Mapping[tuple[int, int], Trace],
) -> None:
    emit(Started(name, what))
    began = time.monotonic()
    outcome = condition()
    check = _judge(name, what, outcome, outcome.expected or alone)
    check.seconds = round(time.monotonic() - began, 2)
    report.checks.append(check)
    emit(check)


def _judge(name: str, what: str, outcome: Outcome, expected: Mapping[tuple[int, int], Trace]) -> Check:
    check = Check(name, what, "equal" if outcome.runs else "not run", detail=outcome.detail)
    for each in outcome.runs:
        for key in each.traces.keys() & expected.keys():
            check.compared += len(expected[key].tokens)
            difference = compare(expected[key], each.traces[key])
            if difference is None:
                continue
            if check.verdict == "equal":
                check.verdict = "differs"
                where = f"token {difference.position + 1}" if difference.position >= 0 else "the prompt"
                check.detail = f"first at {where} of request {key[0]}: {difference.what}"
            check.different += difference.rows
            check.largest_difference = max(check.largest_difference, difference.largest)
    assert check.compared or check.verdict == "not run", name
    return check
