"""One replica becomes two and one again on a real Ray, by what waits and by how full caches are; no stream is cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ray.running import Load, deployed, wait_for

pytest.importorskip("ray.serve", reason="Ray is not installed: pip install 'text-generation-inference[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BY_QUEUE = ("--max-batch-size=1", "--target-queue=2", "--target-cache=1.0")
"""One stream runs, the others wait."""
BY_CACHE = ("--max-total-tokens=512", "--kv-cache-memory=2MiB", "--target-queue=100", "--target-cache=0.5")
"""A stream holds about a sixth of the cache."""


@pytest.mark.parametrize("words", [BY_QUEUE, BY_CACHE], ids=["queue", "cache"])
def test_a_replica_comes_and_goes(tmp_path: Path, words: tuple[str, ...]) -> None:
    scaling = ("--min-replicas=1", "--max-replicas=2", "--scale-up-delay=1", "--scale-down-delay=4")
    with deployed(tmp_path, "tgi-demo", "--threads=1", "--memory=1GiB", *scaling, *words) as deployment:
        (first,) = deployment.replicas
        with Load(deployment.url, 1) as light:  # goes on while the other one comes and goes
            wait_for(lambda: light.whole > 3)
            assert deployment.replicas == [first], "little load needs no second one"
            with Load(deployment.url, 7) as heavy:
                wait_for(lambda: len(deployment.replicas) == 2, 120)
                since = heavy.whole
                wait_for(lambda: heavy.whole > since + 14)
            wait_for(lambda: len(deployment.replicas) == 1, 180)
            since = light.whole
            wait_for(lambda: light.whole > since + 3)
        assert not light.broken and not heavy.broken
