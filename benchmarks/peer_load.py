"""What else uses the cores: waited for before a measurement, and counted during one.

Owns no judgement: `peer_rows` keeps the share, `peer_report` marks it. Used by `peers`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psutil

ENOUGH = 0.05
IDLE = ("idle", "iowait", "guest", "guest_nice")
"""Of psutil's columns; those of guests are contained in others."""


def wait_quiet(busy_share: Callable[[], float], limit_s: float) -> float:
    """Wait until others take less than ENOUGH of all cores; returns what they took in the end."""
    end = time.monotonic() + limit_s
    while True:
        busy = busy_share()
        if busy <= ENOUGH or time.monotonic() > end:
            return busy


class Others:
    """Counts from its creation the processor time that neither this process nor its descendants took."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._before = used_by_all() - used_by_us()

    def share(self) -> float:
        """Of all cores, until now; what a hypervisor took away is in it."""
        seconds = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        return max(0.0, (used_by_all() - used_by_us() - self._before) / seconds)


def used_by_all() -> float:
    """Seconds since the machine began."""
    return sum(value for name, value in psutil.cpu_times()._asdict().items() if name not in IDLE)


def used_by_us() -> float:
    """Seconds of this process, its descendants, and those of them that ended and were waited for."""
    total = 0.0
    own = psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:  # ended just now; its parent counts it from here on
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total
