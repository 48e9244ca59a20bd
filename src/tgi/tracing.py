"""OpenTelemetry spans of requests, sent over OTLP (gRPC); off unless an endpoint is given.

Owns the exporter and the reading of `traceparent`. Does not own what is recorded (`api.call`).
The library is optional (extra `otlp`) and only imported when tracing is on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from tgi.errors import ArgumentError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

Attribute = str | int | float | bool


LONGEST_ID = 200
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def identity(headers: Mapping[str, str]) -> dict[str, str]:
    """What a request is called in the logs of router, server and engine alike: its id and its trace, where given."""
    found = {}
    if given := headers.get("x-request-id"):
        found["request_id"] = given[:LONGEST_ID]
    if trace := _TRACEPARENT.fullmatch(headers.get("traceparent") or ""):
        found["trace_id"] = trace[1]
    return found


class Span(Protocol):
    """One request as the collector sees it."""

    def set(self, attributes: Mapping[str, Attribute]) -> None: ...

    def end(self, error: str | None = None) -> None: ...


class NoSpan:
    """What a request records when tracing is off: nothing."""

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        pass

    def end(self, error: str | None = None) -> None:
        pass


class Tracer:
    """Starts spans; this one is off."""

    def start(self, name: str, headers: Mapping[str, str]) -> Span:
        """A span below the one that the W3C header `traceparent` of the request names, if any."""
        return NO_SPAN

    def shutdown(self) -> None:
        """Send what is left."""


NO_SPAN = NoSpan()


class OtlpTracer(Tracer):
    """Sends spans to an OTLP collector, in batches, from a thread of its own."""

    def __init__(self, service_name: str, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        # A provider of our own and not the global one: two servers in a process do not share it.
        self._provider = TracerProvider(resource=Resource.create({"service.name": service_name}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tgi")

    def start(self, name: str, headers: Mapping[str, str]) -> Span:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {key: headers[key] for key in ("traceparent", "tracestate") if key in headers}
        parent = TraceContextTextMapPropagator().extract(carrier)
        return _OtlpSpan(self._tracer.start_span(name, context=parent, kind=SpanKind.SERVER))

    def shutdown(self) -> None:
        self._provider.shutdown()


class _OtlpSpan:
    def __init__(self, span: object) -> None:
        from opentelemetry.trace import Span as OtelSpan

        assert isinstance(span, OtelSpan)
        self._span = span

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        self._span.set_attributes(attributes)

    def end(self, error: str | None = None) -> None:
        from opentelemetry.trace import Status, StatusCode

        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


def create_tracer(endpoint: str | None, service_name: str) -> Tracer:
    """The tracer for `--otlp-endpoint`; raises ArgumentError when the extra is not installed."""
    if endpoint is None:
        return Tracer()
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise ArgumentError(
            "`otlp_endpoint` needs OpenTelemetry: pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-grpc"
        ) from None
    secure = endpoint.startswith("https://")
    return OtlpTracer(service_name, OTLPSpanExporter(endpoint=endpoint, insecure=not secure))
