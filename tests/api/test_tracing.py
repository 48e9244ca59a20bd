"""Spans of requests: off by default, below the caller's span when it names one."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest

from tests.api.fake import FakeEngine, build_app
from tgi.tracing import NO_SPAN, OtlpTracer, Tracer, create_tracer

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_off_without_an_endpoint() -> None:
    tracer = create_tracer(None, "name")
    assert type(tracer) is Tracer
    assert tracer.start("generate", {"traceparent": f"00-{TRACE}-{PARENT}-01"}) is NO_SPAN


async def test_spans() -> None:
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    tracer = OtlpTracer("my-service", exporter)
    app = build_app(FakeEngine())
    app.state.api.tracer = tracer
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        await client.post("/generate", json={"inputs": "a secret"}, headers=headers)
        await client.post("/generate_stream", json={"inputs": "a secret"})
        await client.post("/v1/completions", json={"prompt": ""})
        await client.get("/health")
    tracer.shutdown()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"generate", "generate_stream", "completions"}
    whole = spans["generate"]
    assert format(whole.context.trace_id, "032x") == TRACE
    assert format(whole.parent.span_id, "016x") == PARENT
    assert whole.resource.attributes["service.name"] == "my-service"
    assert whole.attributes["generated_tokens"] == 12
    assert {"parameters", "total_time", "queue_time", "inference_time", "seed"} <= set(whole.attributes)
    assert "secret" not in str(whole.attributes)
    assert spans["generate_stream"].parent is None
    assert spans["generate_stream"].attributes["finish_reason"] == "eos_token"
    assert spans["completions"].attributes["error_type"] == "validation"
    assert spans["completions"].status.description == "Input validation error: `prompt` cannot be empty"
    assert whole.status.is_unset


def test_the_api_process_imports_neither_torch_nor_tracing() -> None:
    """Both are large; the first must never be there, the second only when it is on."""
    large = ("torch", "transformers", "opentelemetry.sdk")
    code = f"import sys, tgi.api.app; print(*(name for name in {large} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
