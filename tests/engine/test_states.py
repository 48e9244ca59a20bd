"""Models with a state beside the KV cache, and mixtures of experts, through the whole engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.tiny import write_tiny
from tgi.engine.determinism.checks import verify
from tgi.engine.worker import Worker
from tgi.kernels.native.library import NativeUnavailable, load
from tgi.settings.config import EngineConfig

FAMILIES = ["mamba2", "lfm2", "qwen3_next", "granitemoehybrid", "deepseek_v3", "gpt_oss", "mixtral", "gemma4"]
FAST = ("granitemoehybrid",)


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_same_bits_with_strangers_chunks_hits_and_preemptions(name: str, tmp_path: Path) -> None:
    try:
        load()
    except NativeUnavailable as reason:
        pytest.skip(str(reason))
    write_tiny(tmp_path, name)
    report = verify(
        EngineConfig(model_path=str(tmp_path), model_id=name, device="cpu", threads=2), 1, lambda line: None
    )
    verdicts = {check.name: check.verdict for check in report.checks}
    assert report.passed and set(verdicts.values()) == {"equal"}, verdicts
    assert {"prefix hit", "preemption", "samples"} <= set(verdicts)


def test_states_are_in_the_memory_plan(tmp_path: Path) -> None:
    write_tiny(tmp_path, "mamba2")
    worker = Worker(EngineConfig(model_path=str(tmp_path), model_id="m", device="cpu", threads=2, max_batch_size=5))
    numbers = 3 * (64 * 2 + 2 * 2 * 12) + 8 * 16 * 12  # the last rows before the convolution, and the recurrence
    rows = {row.name: row.bytes for row in worker.info.memory.rows}
    assert worker.info.num_states == 15 and rows["states"] == 15 * 2 * numbers * 4
    assert [store.shape for store in worker.runner.cache.states] == [(15, numbers)] * 2
