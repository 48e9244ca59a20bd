"""The Grafana dashboard of deploy/grafana/tgi.json, as a table of panels; `make docs` writes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT, PER_ROW = 8, 8, 3
OF = 'job=~"$job", instance=~"$instance"'


@dataclass(frozen=True)
class Panel:
    """A time series: a title, a unit of Grafana's, and what is drawn: name of the line -> query."""

    title: str
    unit: str
    lines: dict[str, str]
    about: str = ""


def rate(counter: str, by: str = "") -> str:
    """A counter's growth a second, summed over all that is selected."""
    return f"sum {f'by ({by}) ' if by else ''}(rate({counter}{{{OF}}}[$__rate_interval]))"


def quantiles(histogram: str) -> dict[str, str]:
    """Median and tails of a histogram."""
    buckets = f"sum by (le) (rate({histogram}_bucket{{{OF}}}[$__rate_interval]))"
    return {f"p{share}": f"histogram_quantile(0.{share}, {buckets})" for share in ("50", "90", "99")}


def mean(histogram: str) -> str:
    """Of what was observed in the interval."""
    return f"{rate(f'{histogram}_sum')} / {rate(f'{histogram}_count')}"


ROWS: dict[str, tuple[Panel, ...]] = {
    "What clients see": (
        Panel("Time to first token", "s", quantiles("tgi_request_time_to_first_token_duration")),
        Panel("Time between tokens", "s", quantiles("tgi_request_time_per_output_token_duration")),
        Panel("Duration of a request", "s", quantiles("tgi_request_duration")),
        Panel(
            "Requests",
            "reqps",
            {"all": rate("tgi_request_count"), "succeeded": rate("tgi_request_success")},
        ),
        Panel(
            "Failures",
            "reqps",
            {"{{err}}": rate("tgi_request_failure", "err")},
            "By kind: overloaded and validation are the clients', dropped those that left, the others ours.",
        ),
        Panel(
            "Running and waiting",
            "short",
            {
                "running": f"sum(tgi_batch_current_size{{{OF}}})",
                "waiting": f"sum(tgi_queue_size{{{OF}}})",
            },
        ),
    ),
    "What the engine does": (
        Panel(
            "Tokens a second",
            "short",
            {"generated": rate("tgi_decode_tokens"), "of prompts": rate("tgi_prefill_tokens")},
        ),
        Panel(
            "KV cache",
            "percentunit",
            {
                "in use": f"avg(tgi_kv_cache_usage{{{OF}}})",
                "found in the prefix cache": f"{rate('tgi_prefix_cache_hit_tokens')} / "
                f"{rate('tgi_prefix_cache_query_tokens')}",
            },
            "In use: blocks that sequences hold. Found: share of prompt tokens that need not be computed.",
        ),
        Panel(
            "Preempted sequences",
            "cps",
            {"preempted": f"{rate('tgi_preemptions')} or vector(0)"},
            "More than now and then: the cache is too small for the load.",
        ),
        Panel(
            "Seconds of a step",
            "s",
            {"{{method}}": f"{rate('tgi_batch_inference_duration_sum', 'method')} / "
             f"{rate('tgi_batch_inference_duration_count', 'method')}"},
        ),
        Panel(
            "Where a request's time goes",
            "s",
            {
                "validation": mean("tgi_request_validation_duration"),
                "queue": mean("tgi_request_queue_duration"),
                "inference": mean("tgi_request_inference_duration"),
            },
        ),
        Panel("Steps a second", "cps", {"{{method}}": rate("tgi_batch_inference_count", "method")}),
    ),
    "What is asked": (
        Panel("Prompt tokens of a request", "short", quantiles("tgi_request_input_length")),
        Panel("Generated tokens of a request", "short", quantiles("tgi_request_generated_tokens")),
        Panel(
            "The HTTP process",
            "bytes",
            {"resident memory": f"sum(process_resident_memory_bytes{{{OF}}})"},
        ),
    ),
}  # fmt: skip
"""Title of a row -> its panels."""


def dashboard() -> str:
    """The file's text."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": top, "w": WIDTH * PER_ROW, "h": 1}
        heading = {"type": "row", "title": title, "gridPos": place, "collapsed": False, "panels": []}
        panels.append({"id": len(panels) + 1, **heading})
        top += 1
        for number, panel in enumerate(row):
            y, x = divmod(number, PER_ROW)
            place = {"x": x * WIDTH, "y": top + y * HEIGHT, "w": WIDTH, "h": HEIGHT}
            panels.append(_panel(len(panels) + 1, panel, place))
        top += -(-len(row) // PER_ROW) * HEIGHT
    return json.dumps(_around(panels), indent=1) + "\n"


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": query, "legendFormat": name}
        for index, (name, query) in enumerate(panel.lines.items())
    ]
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"}},
        "targets": targets,
    }


def _around(panels: list[dict[str, Any]]) -> dict[str, Any]:
    """The dashboard itself: variables to choose the source, the job and the server by."""

    def chosen(label: str, query: str) -> dict[str, Any]:
        return {
            "type": "query",
            "name": label,
            "datasource": DATASOURCE,
            "query": {"query": query, "refId": label},
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
            "refresh": 2,
        }

    source = {"type": "datasource", "name": "datasource", "query": "prometheus", "current": {}}
    variables = [
        source,
        chosen("job", "label_values(tgi_queue_size, job)"),
        chosen("instance", 'label_values(tgi_queue_size{job=~"$job"}, instance)'),
    ]
    return {
        "uid": "tgi",
        "title": "Text Generation Inference",
        "tags": ["tgi"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": variables},
        "panels": panels,
    }
