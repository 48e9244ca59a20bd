"""`/metrics`: every series after a named request, in a format that Prometheus reads."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.fake import INFO, FakeEngine, build_app
from tgi.messages import StepStats
from tgi.metrics import DURATIONS, GATEWAY, METRICS, Metrics

MESSAGES = [{"role": "user", "content": "Hi"}]
DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"

AFTER_A_GENERATION = {
    "tgi_request_count",
    "tgi_request_success",
    "tgi_request_duration",
    "tgi_request_validation_duration",
    "tgi_request_queue_duration",
    "tgi_request_inference_duration",
    "tgi_request_mean_time_per_token_duration",
    "tgi_request_generated_tokens",
    "tgi_request_input_length",
    "tgi_request_max_new_tokens",
    "tgi_request_skipped_tokens",
    "tgi_request_time_to_first_token_duration",
    "tgi_request_time_per_output_token_duration",
    "tgi_queue_size",
    "tgi_batch_current_size",
    "tgi_batch_current_max_tokens",
    "tgi_batch_next_size",
    "tgi_batch_inference_count",
    "tgi_batch_inference_success",
    "tgi_batch_inference_duration",
    "tgi_batch_forward_duration",
    "tgi_batch_decode_duration",
    "tgi_batch_filter_duration",
    "tgi_batch_max_total_tokens",
    "tgi_kv_cache_usage",
    "tgi_prefix_cache_query_tokens",
    "tgi_prefix_cache_hit_tokens",
    "tgi_engine_steps",
    "tgi_prefill_tokens",
    "tgi_decode_tokens",
}


async def scrape(client: httpx.AsyncClient) -> str:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    return answer.text


def names(text: str) -> set[str]:
    return set(re.findall(r"^# TYPE (tgi_\S+)", text, re.MULTILINE))


def value(text: str, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    assert found, f"{series} is not there"
    return float(found[1])


async def test_series_after_a_generation(client: httpx.AsyncClient) -> None:
    """Nothing before its first use but the size of the cache, as in TGI."""
    assert names(await scrape(client)) == {"tgi_batch_max_total_tokens"}
    await client.post("/generate", json={"inputs": "x"})
    text = await scrape(client)
    assert names(text) == AFTER_A_GENERATION
    assert value(text, "tgi_request_count") == 1
    assert value(text, "tgi_request_success") == 1
    assert value(text, "tgi_request_generated_tokens_sum") == 12
    assert value(text, "tgi_request_input_length_sum") == 2
    for method in ("prefill", "decode"):
        assert value(text, f'tgi_batch_inference_count{{method="{method}"}}') > 0
        assert value(text, f'tgi_batch_forward_duration_count{{method="{method}"}}') > 0


async def test_no_name_is_changed(client: httpx.AsyncClient) -> None:
    await client.post("/generate", json={"inputs": "x"})
    text = await scrape(client)
    assert not re.search(r"^tgi_\S*(_total|_created)[ {]", text, re.MULTILINE)
    assert not re.search(r"^tgi_\S+ (NaN|nan)", text, re.MULTILINE)


async def test_prometheus_can_read_it(client: httpx.AsyncClient) -> None:
    """Types and help texts as in the table; buckets cumulate to the count."""
    await client.post("/generate", json={"inputs": "x"})
    families = {family.name: family for family in text_string_to_metric_families(await scrape(client))}
    for name in AFTER_A_GENERATION:
        family, spec = families[name], METRICS[name]
        assert (family.type, family.documentation) == (spec.kind, spec.help)
        if spec.kind == "histogram":
            buckets = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
            counts = [sample.value for sample in family.samples if sample.name.endswith("_count")]
            assert max(buckets) == max(counts)
    assert "process_resident_memory_bytes" in families


INFER = {
    "id": "1",
    "inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": [65]}] * 2,
    "outputs": [{"name": "a"}] * 2,
}
SAMPLED = {"do_sample": True}


def ended(text: str) -> float:
    """Successes, failures and refusals together."""
    found = re.findall(r"^tgi_request_(?:success|failure{[^}]*}) (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", {"inputs": "x"}),
        ("/", {"inputs": "x", "stream": True}),
        ("/generate", {"inputs": "x"}),
        ("/generate", {"inputs": "x", "parameters": {"best_of": 2, **SAMPLED}}),
        ("/generate_stream", {"inputs": "x"}),
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/v1/chat/completions", {"messages": MESSAGES, "n": 3}),
        ("/v1/chat/completions", {"messages": MESSAGES, "n": 3, "stream": True}),
        ("/v1/completions", {"prompt": ["a", "b"]}),
        ("/v1/completions", {"prompt": ["a", "b"], "n": 2, "stream": True}),
        ("/v1/completions", {"prompt": "a", "best_of": 2}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/responses", {"input": "x", "stream": True}),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 5}),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 5, "stream": True}),
        ("/invocations", {"inputs": "x"}),
        ("/invocations", {"messages": MESSAGES}),
        ("/vertex", {"instances": [{"inputs": "a"}, {"messages": MESSAGES}]}),
        ("/v2/models/m/versions/1/infer", INFER),
        ("/chat_tokenize", {"messages": MESSAGES}),
    ],
)
async def test_every_request_is_counted_once(client: httpx.AsyncClient, path: str, body: dict[str, object]) -> None:
    """Whatever the number of its prompts and samples; /tokenize never, as in TGI."""
    for number in (1, 2):
        assert (await client.post(path, json=body)).status_code == 200
        await client.post("/tokenize", json={"inputs": "x"})
        text = await scrape(client)
        assert value(text, "tgi_request_count") == value(text, "tgi_request_success") == ended(text) == number


JSON = {"content-type": "application/json"}
BODIES = ("/generate", "/generate_stream", "/", "/v1/chat/completions", "/v1/completions", "/invocations", "/vertex")


@pytest.mark.parametrize("path", [*BODIES, "/v2/models/m/versions/1/infer", "/chat_tokenize"])
@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{}", {}, 415),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{", JSON, 400),
        (b"\xff", JSON, 400),
        (b"", JSON, 400),
        (b" " * 2001, JSON, 413),
        (b"{}", JSON, 422),
        (b"[]", JSON, 422),
        (b'"x"', JSON, 422),
        (b'{"inputs": 1, "messages": 1, "prompt": 1, "instances": 1, "id": 1}', JSON, 422),
        (b'{"inputs": "x", "parameters": {"top_k": "5"}}', JSON, 422),
    ],
)
async def test_bodies_of_wrong_types_are_counted(
    path: str, content: bytes, headers: dict[str, str], status: int
) -> None:
    transport = httpx.ASGITransport(build_app(FakeEngine(), payload_limit=2000))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.post(path, content=content, headers=headers)).status_code == status
        text = await scrape(client)
    assert value(text, "tgi_request_count") == value(text, 'tgi_request_failure{err="validation"}') == ended(text) == 1


@pytest.mark.parametrize(
    ("err", "path", "body", "trouble"),
    [
        ("validation", "/vertex", {"instances": []}, ""),
        ("validation", "/generate", {"inputs": "x", "parameters": {"top_k": 0}}, ""),
        ("validation", "/v1/completions", {"prompt": "x", "suffix": "y"}, ""),
        ("validation", "/v1/chat/completions", {"messages": MESSAGES, "tools": [{}]}, ""),
        ("template", "/vertex", {"instances": [{"messages": [{"role": "bad", "content": ""}]}]}, ""),
        ("overloaded", "/generate_stream", {"inputs": "x"}, "full"),
        ("overloaded", "/v1/chat/completions", {"messages": MESSAGES}, "full"),
        ("overloaded", "/chat_tokenize", {"messages": MESSAGES}, "full"),
        ("shutting_down", "/generate", {"inputs": "x"}, "draining"),
        ("shutting_down", "/v1/completions", {"prompt": "x", "stream": True}, "draining"),
        ("unhealthy", "/v1/completions", {"prompt": ["a", "b"]}, "silent"),
        ("unhealthy", "/generate_stream", {"inputs": "x"}, "silent"),
        ("generation", "/vertex", {"instances": [{"inputs": "a"}, {"inputs": "b"}]}, "fail"),
        ("generation", "/v2/models/m/versions/1/infer", INFER, "fail"),
        ("generation", "/v1/completions", {"prompt": ["a", "b"], "n": 2, "stream": True}, "fail"),
        ("incomplete", "/generate_stream", {"inputs": "x"}, "cut"),
        ("incomplete", "/v1/chat/completions", {"messages": MESSAGES, "stream": True}, "cut"),
        ("internal", "/generate", {"inputs": "x"}, "crash"),
        ("internal", "/generate_stream", {"inputs": "x"}, "crash"),
        ("internal", "/vertex", {"instances": [{"inputs": "a"}]}, "crash"),
    ],
)
async def test_failures_and_refusals_are_counted_once(
    err: str, path: str, body: dict[str, object], trouble: str
) -> None:
    engine = FakeEngine()
    if trouble in ("fail", "cut", "crash"):
        setattr(engine, f"{trouble}_after", 1)
    engine.silent = trouble == "silent"
    app = build_app(engine)
    if trouble == "full":
        app.state.api.permits.take(16)
    app.state.api.permits.draining = trouble == "draining"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        await client.post(path, json=body)
        text = await scrape(client)
    assert value(text, "tgi_request_count") == value(text, f'tgi_request_failure{{err="{err}"}}') == ended(text) == 1


@pytest.mark.parametrize(
    ("err", "path", "body"),
    [
        ("validation", "/generate", {"inputs": ""}),
        ("validation", "/generate_stream", {"inputs": ""}),
        ("validation", "/v1/completions", {"prompt": ["x", ""]}),
        ("template", "/v1/chat/completions", {"messages": [{"role": "bad", "content": ""}]}),
        ("generation", "/generate", {"inputs": "x"}),
        ("generation", "/v1/completions", {"prompt": "x", "stream": True}),
        ("overloaded", "/v1/completions", {"prompt": ["x"] * 2}),
    ],
)
async def test_failures(err: str, path: str, body: dict[str, object]) -> None:
    """`dropped` is in test_wire.py."""
    engine = FakeEngine()
    engine.fail_after = 1
    app = build_app(engine, max_concurrent_requests=2)
    if err == "overloaded":
        app.state.api.permits.take(1)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        await client.post(path, json=body)
        text = await scrape(client)
        assert value(text, f'tgi_request_failure{{err="{err}"}}') == 1
        assert len(re.findall("^tgi_request_failure{", text, re.MULTILINE)) == 1
        assert "tgi_request_success" not in text


def test_steps() -> None:
    metrics = Metrics.for_engine(INFO)
    metrics.observe_step(StepStats(step=1))
    assert "tgi_engine_steps" not in metrics.render().decode()  # a heartbeat is no step
    metrics.observe_step(
        StepStats(
            step=2,
            running=3,
            waiting=4,
            free_blocks=25,
            running_tokens=99,
            scheduled_prefill_tokens=8,
            scheduled_decode_tokens=2,
            admitted=1,
            prefix_hit_tokens=16,
            prefix_query_tokens=24,
            preemptions=2,
            schedule_s=0.1,
            forward_s=1.0,
            sample_s=0.2,
            total_s=1.3,
            failed=True,
        )
    )
    text = metrics.render().decode()
    for series, expected in {
        "tgi_queue_size": 4,
        "tgi_batch_current_size": 3,
        "tgi_batch_current_max_tokens": 99,
        "tgi_kv_cache_usage": 0.75,
        "tgi_preemptions": 2,
        "tgi_prefix_cache_hit_tokens": 16,
        "tgi_prefix_cache_query_tokens": 24,
        "tgi_batch_next_size_sum": 1,
        'tgi_batch_concat{reason="chunking"}': 1,
        'tgi_batch_inference_failure{method="prefill"}': 1,
        'tgi_batch_inference_duration_sum{method="prefill"}': 1.3,
        'tgi_batch_decode_duration_sum{method="prefill"}': 0.2,
        'tgi_batch_filter_duration_sum{method="prefill"}': 0.1,
        'tgi_batch_concat_duration_sum{method="decode"}': 0.1,
    }.items():
        assert value(text, series) == pytest.approx(expected)
    assert names(text) | AFTER_A_GENERATION | {"tgi_request_failure"} == set(METRICS)


def test_gateways_find_their_names() -> None:
    """From the first moment on, and equal to ours."""
    metrics = Metrics(num_blocks=10, block_size=16)
    text = metrics.render().decode()
    assert all(value(text, name) == 0 for name in GATEWAY)
    assert value(text, 'vllm:cache_config_info{block_size="16",num_gpu_blocks="10"}') == 1
    metrics.observe_step(StepStats(step=1, running=3, waiting=4, free_blocks=4))
    text = metrics.render().decode()
    assert [value(text, name) for name in GATEWAY] == [4, 3, pytest.approx(0.6)]
    documented = DOCS.read_text()
    assert all(f"| `{name}` | `{ours}` |" in documented for name, (ours, _) in GATEWAY.items())


def test_buckets_are_tgis() -> None:
    assert len(DURATIONS) == 35
    assert (DURATIONS[0], round(DURATIONS[-1])) == (0.00015000000000000001, 146)
    metrics = Metrics(1000, 2000)
    metrics.observe("tgi_request_input_length", 10)
    metrics.observe("tgi_request_max_new_tokens", 20)
    metrics.observe("tgi_batch_next_size", 1)
    text = metrics.render().decode()
    assert value(text, 'tgi_request_input_length_bucket{le="10.0"}') == 1
    assert value(text, 'tgi_request_max_new_tokens_bucket{le="20.0"}') == 1
    assert text.count("tgi_request_input_length_bucket") == 101
    assert text.count("tgi_batch_next_size_bucket") == 1025


def test_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.count("tgi_request_failure", err='a"\\\nb')
    assert 'err="a\\"\\\\\\nb"' in metrics.render().decode()


def test_documented() -> None:
    """docs/metrics.md lists the table; on a difference copy the rows from here."""
    rows = [
        f"| `{name}` | {spec.kind} | {', '.join(f'`{label}`' for label in spec.labels)} | {spec.help} |"
        for name, spec in METRICS.items()
    ]
    assert [line for line in DOCS.read_text().splitlines() if line.startswith("| `tgi_")] == rows
