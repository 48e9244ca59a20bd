"""What a request is called in logs."""

from __future__ import annotations

from tgi.tracing import LONGEST_ID, identity

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_id_and_trace_where_given() -> None:
    assert identity({}) == {}
    assert identity({"x-request-id": "a", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}) == {
        "request_id": "a",
        "trace_id": TRACE,
    }


def test_neither_is_trusted() -> None:
    assert len(identity({"x-request-id": "a" * 5000})["request_id"]) == LONGEST_ID
    for wrong in (TRACE, f"00-{TRACE}-1-01", f"00-{TRACE.upper()}-00f067aa0ba902b7-01\n", "x" * 5000):
        assert "trace_id" not in identity({"traceparent": wrong})
