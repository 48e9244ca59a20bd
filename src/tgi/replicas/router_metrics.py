"""What the router counts, in the Prometheus text format."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tgi.replicas.replica import Replica

ADDED_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)


class RouterMetrics:
    """Of one router."""

    def __init__(self, replicas: Iterable[Replica]) -> None:
        registry = self._registry = CollectorRegistry()
        self.choices = Counter("tgi_router_choices", "Requests sent to a replica.", ["replica"], registry=registry)
        self.prompt_bytes = Counter("tgi_router_prompt_bytes", "Bytes of prompts that were sent.", registry=registry)
        self.expected_bytes = Counter(
            "tgi_router_expected_bytes",
            "Bytes of prompts whose keys and values the chosen replica was expected to hold.",
            registry=registry,
        )
        self.retries = Counter(
            "tgi_router_retries", "Requests sent to another replica, by why.", ["reason"], registry=registry
        )
        self.failures = Counter(
            "tgi_router_failures", "Requests that were not answered whole, by why.", ["reason"], registry=registry
        )
        self.waits = Counter(
            "tgi_router_waits",
            "Requests that waited for a replica to start, by what came of it.",
            ["outcome"],
            registry=registry,
        )
        self.added = Histogram(
            "tgi_router_added_duration",
            "Seconds that the router adds before the first byte of an answer.",
            buckets=ADDED_S,
            registry=registry,
        )
        registry.register(_OfReplicas(replicas))
        ProcessCollector(registry=registry)

    def forget(self, replica: Replica) -> None:
        """It is gone: its series end."""
        with contextlib.suppress(KeyError):  # never chosen
            self.choices.remove(replica.url)

    def render(self) -> bytes:
        return generate_latest(self._registry)


class _OfReplicas(Collector):
    """What the replicas last said of themselves."""

    def __init__(self, replicas: Iterable[Replica]) -> None:
        self._replicas = replicas

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("tgi_router_replica_up", "1: the replica is used.", labels=["replica"])
        running = GaugeMetricFamily("tgi_router_replica_running", "Sequences running there.", labels=["replica"])
        waiting = GaugeMetricFamily("tgi_router_replica_waiting", "Requests waiting there.", labels=["replica"])
        usage = GaugeMetricFamily("tgi_router_replica_cache_usage", "Share of the cache held.", labels=["replica"])
        asked = CounterMetricFamily(
            "tgi_router_replica_prefix_query_tokens", "Prompt tokens looked up in its cache.", labels=["replica"]
        )
        hit = CounterMetricFamily(
            "tgi_router_replica_prefix_hit_tokens", "Prompt tokens found in its cache.", labels=["replica"]
        )
        for replica in self._replicas:
            label, said = [replica.url], replica.said
            up.add_metric(label, float(replica.up))
            running.add_metric(label, said.running)
            waiting.add_metric(label, said.waiting)
            usage.add_metric(label, said.cache_usage)
            asked.add_metric(label, said.prefix_query_tokens)
            hit.add_metric(label, said.prefix_hit_tokens)
        return [up, running, waiting, usage, asked, hit]
