"""`tgi plan` against what the processes of a server hold; `benchmarks.memory` reports larger shapes."""

from __future__ import annotations

import pytest
from benchmarks.checkpoints import ensure
from benchmarks.memory import compare

TOLERANCE = 0.15


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("more", [[], ["--quantize", "int8", "--kv-cache-dtype", "int8"]], ids=["bfloat16", "int8"])
def test_the_plan_is_kept(more: list[str]) -> None:
    held = compare(ensure("smollm2-135m"), ["--kv-cache-memory", "512MiB", *more])
    assert held.predicted == pytest.approx(held.loaded, rel=TOLERANCE)
    # The cache takes memory as it is used. Other programs with torch share its pages and disturb the sums.
    assert held.started < held.loaded - 0.9 * held.cache
