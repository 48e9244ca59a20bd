"""How many replicas a model wants: by what waits and by how full their caches are, as the HPA of deploy/kubernetes."""

from __future__ import annotations

import math
from typing import Any


class Policy:
    """Asked by Serve again and again, which applies bounds and delays."""

    def __init__(self, target_queue: float, target_cache: float) -> None:
        """What is wanted of one replica: waiting requests, and the share of its cache in use."""
        self._target_queue, self._target_cache = target_queue, target_cache

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """context: Serve's AutoscalingContext, with what `Engine.record_autoscaling_stats` says.

        Each replica counts for the larger of its queue and its cache, as shares of what is wanted of one. Whatever
        runs or waits for a start needs a replica.
        """
        figures = context.aggregated_metrics or {}
        running, waiting, cache = (figures.get(name) or {} for name in ("running", "waiting", "cache_usage"))
        pressure = sum(
            max(waiting.get(one, 0.0) / self._target_queue, cache.get(one, 0.0) / self._target_cache)
            for one in {*waiting, *cache}
        )
        busy = bool(context.total_num_requests) or any(running.values()) or any(waiting.values())
        return float(max(math.ceil(pressure - 0.001), int(busy))), {}
