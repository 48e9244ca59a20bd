"""What the processes of a server hold: little for a small model, and what `tgi plan` says for others.

`benchmarks.memory` reports larger shapes.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import psutil
import pytest
from benchmarks.checkpoints import ensure
from benchmarks.memory import compare

from tests.e2e.conftest import HAS_DEMO
from tests.e2e.launched import REAL, Launched

TOLERANCE = 0.15


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("more", [[], ["--quantize", "int8", "--kv-cache-dtype", "int8"]], ids=["bfloat16", "int8"])
def test_the_plan_is_kept(more: list[str]) -> None:
    held = compare(ensure("smollm2-135m"), ["--kv-cache-memory", "512MiB", *more])
    assert held.predicted == pytest.approx(held.loaded, rel=TOLERANCE)
    # The cache takes memory as it is used. Other programs with torch share its pages and disturb the sums.
    assert held.started < held.loaded - 0.9 * held.cache


@pytest.mark.skipif(not HAS_DEMO, reason="the demo model is not there")
def test_a_small_model_takes_little(tmp_path: Path) -> None:
    """After a request, shared pages counted in each process. Importing torch alone takes 200 MB."""
    with Launched(REAL, [], tmp_path) as server:
        server.connected()
        httpx.post(f"{server.url}/generate", json={"inputs": "Hello, "}, timeout=30).raise_for_status()
        launcher = psutil.Process(server.pid)
        held = [process.memory_info().rss / 1e6 for process in (launcher, *launcher.children(recursive=True))]
        assert sum(sorted(held)[-2:]) < 450, held
        assert sum(held) < 500, held
