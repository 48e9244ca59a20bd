"""`tgi verify-determinism`: green on the demo model, red for every answer that depends on its surroundings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import torch

from tgi.commands import verify as command
from tgi.commands.cli import main
from tgi.engine.determinism import checks
from tgi.engine.determinism.checks import thread_counts, verify
from tgi.engine.determinism.recorder import Trace, compare
from tgi.engine.determinism.report import Check, Report
from tgi.engine.worker import Worker
from tgi.hub.prepare import demo_directory
from tgi.kernels.native.library import NativeUnavailable, load
from tgi.messages import PromptLogprobs, Token
from tgi.settings.config import EngineConfig
from tgi.settings.flags import LIBRARY_ROUNDINGS, ROUNDINGS

CHECKS = ["again", "batches", "chunks", "prefix hit", "preemption", "samples", "threads 1", "threads 2", "threads 3"]


@pytest.fixture(autouse=True)
def native() -> None:
    try:
        load()
    except NativeUnavailable as reason:
        pytest.skip(str(reason))


def demo(quantize: str | None = None, **settings: object) -> EngineConfig:
    config = EngineConfig(model_path=str(demo_directory()), model_id="demo", device="cpu", threads=2, quantize=quantize)
    return replace(config, **settings)  # type: ignore[arg-type]


def ignore(line: object) -> None:
    pass


CACHES = {"int8": "int8", "int6": "fp8_e5m2", "int5": "fp8_e4m3fn", "eetq": "fp8_e4m3fn"}
"""Value of --quantize -> type of the cache beside it."""
FAST = (None, "int8", "int4")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in (*ROUNDINGS, *LIBRARY_ROUNDINGS) if name not in FAST]


@pytest.mark.parametrize("quantize", [*FAST, *SLOW])
def test_the_demo_model_is_deterministic(quantize: str | None) -> None:
    lines: list[object] = []
    report = verify(demo(quantize, kv_cache_dtype=CACHES.get(quantize or "")), 1, lines.append)
    assert report.passed
    assert {check.name: check.verdict for check in report.checks} == dict.fromkeys(CHECKS, "equal")
    assert all(check.compared >= 64 and check.different == 0 for check in report.checks)
    assert lines[-1] is report and [line for line in lines if isinstance(line, Check)] == report.checks
    assert report.quantize == quantize and report.dtype == "bfloat16"
    assert report.activation_dtype == (None if quantize in (None, "fp8") else "int8")


# The faults exceed what bfloat16 rounds away: on AMX the head sees hidden states in bfloat16.


def forward_by_rows(worker: Worker) -> None:
    """Hidden states that depend on how many rows share the step."""
    model: Any = worker.runner.step
    forward = model.forward
    model.forward = lambda ids, paging, cache: forward(ids, paging, cache) * (1 + 0.01 * len(ids))


def forward_by_chunk(worker: Worker) -> None:
    """Rows of a prompt that depend on where its computation was resumed."""
    model: Any = worker.runner.step
    forward = model.forward

    def wrong(ids, paging, cache):
        hidden = forward(ids, paging, cache)
        resumed = any(1 < rows < context for rows, context in zip(paging.query_lens, paging.context_lens, strict=True))
        return hidden * 1.01 if resumed else hidden

    model.forward = wrong


def sampler_by_rows(worker: Worker) -> None:
    """Log-probabilities off by the last bits when others sample in the same step; logits and tokens are right."""
    sampler = worker.runner.sampler
    sample = sampler.sample

    def wrong(logits, draws, masks=None):
        tokens = sample(logits, draws, masks)
        return tokens if len(tokens) == 1 else [Token(one.id, one.logprob * (1 - 1e-12), one.top) for one in tokens]

    sampler.sample = wrong  # type: ignore[method-assign]


def prompt_logprobs_by_batch(worker: Worker) -> None:
    """Log-probabilities of a prompt that depend on its place in the step."""
    runner = worker.runner
    original = runner._prompt_logprobs

    def wrong(hidden, first_row, chunk):
        pieces = original(hidden, first_row, chunk)
        return PromptLogprobs([one + 1e-9 * (first_row > 0) for one in pieces.logprobs], pieces.top)

    runner._prompt_logprobs = wrong  # type: ignore[method-assign]


def by_threads(worker: Worker) -> None:
    """Logits that depend on the number of threads."""
    if worker.config.threads == 3:
        model: Any = worker.runner.step
        forward = model.forward
        model.forward = lambda *arguments: forward(*arguments) * 1.01


@pytest.mark.parametrize(
    ("fault", "found", "unharmed", "what"),
    [
        (forward_by_rows, {"batches", "chunks", "prefix hit", "preemption", "samples"}, {"again"}, "logits"),
        (forward_by_chunk, {"chunks", "prefix hit"}, {"again", "samples"}, "logits"),
        (sampler_by_rows, {"batches", "preemption", "samples"}, {"again"}, "log-probabilities"),
        (prompt_logprobs_by_batch, {"batches"}, {"again", "samples", "preemption"}, "of the prompt"),
        (by_threads, {"threads 3"}, {*CHECKS[:6], "threads 2"}, "logits"),
    ],
)
def test_a_broken_engine_is_found_out(
    fault: Callable[[Worker], None],
    found: set[str],
    unharmed: set[str],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = [2, 3] if fault is by_threads else []
    monkeypatch.setattr(checks, "thread_counts", lambda most: threads)

    def make_worker(config: EngineConfig) -> Worker:
        worker = Worker(config)
        fault(worker)
        return worker

    report = verify(demo(), 2, ignore, make_worker)
    verdicts = {check.name: check.verdict for check in report.checks}
    assert {name for name in found if verdicts[name] != "differs"} == set()
    assert {name for name in unharmed if verdicts[name] != "equal"} == set()
    assert not report.passed
    for check in report.checks:
        assert (check.different > 0) == (check.verdict == "differs")
        if check.name in found:
            assert what in check.detail


def test_what_cannot_be_checked_says_so() -> None:
    report = verify(demo(prefix_caching=False, max_total_tokens=20), 3, ignore)
    not_run = {check.name: check.detail for check in report.checks if check.verdict == "not run"}
    assert not_run == {"prefix hit": "prefix caching is off", "preemption": "context or cache are too short"}
    assert report.passed


def trace(*values: float, logprob: float = -1.0) -> Trace:
    return Trace([torch.tensor([value, 1.0]) for value in values], [Token(1, logprob) for _ in values])


def test_every_bit_counts() -> None:
    assert compare(trace(0.5, 0.25), trace(0.5, 0.25)) is None
    assert compare(trace(float("nan")), trace(float("nan"))) is None
    found = compare(trace(0.5, 0.25, 1.0), trace(0.5, 0.75, 1.0))
    assert found is not None and (found.position, found.what, found.rows, found.largest) == (1, "logits", 2, 0.5)
    assert compare(trace(0.0), trace(-0.0)) is not None
    assert compare(trace(0.5), trace(0.5, logprob=-1.0000000000000002)) is not None
    assert compare(trace(0.5, 0.5), trace(0.5)) is not None
    assert compare(trace(0.5), trace(0.5, 0.5)) is not None


def test_thread_counts() -> None:
    assert thread_counts(1) == [1, 3]
    assert thread_counts(4) == [1, 2, 3, 4]
    assert thread_counts(64) == [1, 2, 3, 4, 5, 8, 16, 32, 64]


def test_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    flags = ["--threads=1", "--seed", "7", "--json", "--quantize", "int8", "--activation-dtype", "float32"]
    assert main(["verify-determinism", *flags]) == 0
    report = msgspec.convert(json.loads(capfd.readouterr().out), Report)
    assert report.seed == 7 and report.threads == 1 and report.passed
    assert (report.quantize, report.activation_dtype) == ("int8", "float32")


@pytest.mark.parametrize(
    ("quantize", "activation_dtype", "kv_cache_dtype", "types"),
    [
        (None, None, None, "in bfloat16 on cpu"),
        (None, None, "int8", "in bfloat16, cache int8 on cpu"),
        ("int4", "float32", None, "in bfloat16, weights int4, activations float32 on cpu"),
        ("int8", "int8", "int8", "in bfloat16, weights int8, activations int8, cache int8 on cpu"),
    ],
)
def test_the_conclusion_names_every_type(
    quantize: str | None, activation_dtype: str | None, kv_cache_dtype: str | None, types: str
) -> None:
    report = Report(
        "demo", "llama", "cpu", "bfloat16", quantize, activation_dtype, kv_cache_dtype, {"step": "native"}, 2, 1
    )
    assert types in command.conclusion(report)


@pytest.mark.parametrize(
    ("verdicts", "status", "says"),
    [
        (("equal", "equal"), 0, "have the same bits"),
        (("equal", "not run"), 0, "Not run: two"),
        (("equal", "differs"), 1, "DEPEND on how they are computed: two."),
        (("not run", "not run"), 1, "Nothing could be compared"),
    ],
)
def test_exit_status(
    verdicts: tuple[str, str], status: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    made = [Check(name, "words", verdict) for name, verdict in zip(("one", "two"), verdicts, strict=True)]  # type: ignore[arg-type]
    report = Report("demo", "llama", "cpu", "float32", None, None, None, {"step": "reference"}, 2, 1, made)
    monkeypatch.setattr(command, "run", lambda *unused: report)
    assert main(["verify-determinism"]) == status
    out = capsys.readouterr().out
    assert says in out
    assert ("do not promise" in out) == ("differs" in verdicts)


def test_mistakes(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-determinism", "--seed", "x"]) == 2
    assert "invalid value 'x' for '--seed'" in capfd.readouterr().err
    assert main(["verify-determinism", "--seeed", "1"]) == 2
    assert main(["verify-determinism", "--memory", "1MiB"]) == 1
    assert "the weights do not fit" in capfd.readouterr().err
    assert main(["verify-determinism", "--help"]) == 0
    out = capfd.readouterr().out
    assert "--seed" in out and "--model-id" in out
