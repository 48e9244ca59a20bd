"""The line that says how busy the server is."""

from __future__ import annotations

import time

from tgi.launcher.status_line import StatusLine
from tgi.messages import StepStats


def test_what_it_says() -> None:
    status = StatusLine(num_blocks=100, waiting=lambda: 2)
    began = time.monotonic()
    status.line(began)
    for _ in range(10):
        status.observe(StepStats(running=3, free_blocks=75, scheduled_prefill_tokens=40, scheduled_decode_tokens=2))
    assert status.line(began + 4) == (
        "Running 3, queued 2, 5.0 tokens/s generated, 100.0 tokens/s of prompts, cache 25 % in use"
    )
    status.observe(StepStats(running=3, free_blocks=75, scheduled_decode_tokens=2))
    assert status.line(began + 6) == "Running 3, queued 2, 1.0 tokens/s generated, cache 25 % in use"


def test_an_idle_server_says_nothing() -> None:
    """The interval in which the last request ended has a line of its own, and then there is none."""
    status = StatusLine(num_blocks=100, waiting=lambda: 0)
    assert status.line(time.monotonic() + 1) is None
    status.observe(StepStats(running=1, free_blocks=99, scheduled_decode_tokens=1))
    status.observe(StepStats(free_blocks=100))
    assert (status.line(time.monotonic() + 2) or "").startswith("Running 0, queued 0")
    assert status.line(time.monotonic() + 3) is None
