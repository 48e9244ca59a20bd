"""An equal, bounded share of processor time for each process that is compared, whatever else the machine does.

Owns the control groups for that, of version 2 or 1 of the kernel's interface, and that none is left.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PERIOD_US = 10_000
"""A share is given out so often: no longer than some steps of the engine, as a slower core and not one with gaps."""
ROOT = Path("/sys/fs/cgroup")
GONE_S = 2.0
"""For the processes of a group to be gone from it after they have ended."""
_numbers = itertools.count()


@contextlib.contextmanager
def share(cores: float, root: Path = ROOT) -> Iterator[Callable[[], None]]:
    """What a process calls to enter a new group, with all that it will start; raises SystemExit where there is none.

    cores: seconds of processor time in a second, of the group as a whole.
    """
    group = None
    try:
        group = _made(root, cores)
    except OSError as error:
        raise SystemExit(
            f"--replica-cores needs control groups that this user may make below {root}: {error.strerror or error}"
        ) from None
    try:
        yield lambda: _enter(group)
    finally:
        _remove(group)


def _made(root: Path, cores: float) -> Path:
    """Raises OSError."""
    one = (root / "cgroup.controllers").exists()
    group = (root if one else root / "cpu") / f"tgi-benchmark-{os.getpid()}-{next(_numbers)}"
    if one:
        (root / "cgroup.subtree_control").write_text("+cpu")
    group.mkdir()
    quota = max(round(cores * PERIOD_US), 1000)
    try:
        if one:
            (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
    except OSError:
        _remove(group)
        raise
    return group


def _enter(group: Path) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()))


def _remove(group: Path) -> None:
    until = time.monotonic() + GONE_S
    while True:
        try:
            group.rmdir()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
